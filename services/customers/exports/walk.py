"""All that an export holds, page by page: in one order, in bounded memory, and noted before it leaves."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from libs import caller as callers
from libs.crypto import Kind, live_versions
from libs.db import Tx
from regulars.customers.v1 import exports_pb2 as pb
from regulars.customers.v1.search_pb2 import SearchCustomersRequest
from services.customers.exports import queries
from services.customers.exports.columns import Column, Needs, Person
from services.customers.exports.problems import ExportTooWide, SheetTooLong
from services.customers.exports.sheets import MOST_ROWS
from services.customers.search import finding, rules, tokens
from services.customers.search import queries as search_queries
from services.customers.search import wire as search_wire
from services.customers.search.finding import Looking
from services.customers.search.ordering import NEWEST, phases
from services.customers.search.ordering import Column as Order
from services.customers.search.queries import Scope

if TYPE_CHECKING:
    from libs.run.service import Runtime

PAGE = 1_000
# How many people are opened, or written, before others of the process have their turn: one or two milliseconds.
AT_ONCE = 25

Position = list[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What an export holds. `columns` are all of them, of which those named in `masked` stay empty.

    `given` are the fields of the search's filter, without the city, whose token depends on a key.
    """

    business_id: UUID
    country: str
    form: int
    search: SearchCustomersRequest
    given: Mapping[str, Any]
    order: Sequence[Order]
    columns: tuple[Column, ...]
    masked: frozenset[str]
    masks: frozenset[str]
    needs: frozenset[Needs] = field(default=frozenset())
    categories: frozenset[str] = field(default=frozenset())

    @property
    def shown(self) -> tuple[Column, ...]:
        """The columns that have values."""
        return tuple(column for column in self.columns if column.name not in self.masked)


@dataclass(frozen=True, slots=True)
class Size:
    """How many customers an export will hold, and whether that is an estimate."""

    total: int
    estimated: bool


async def measure(rt: "Runtime", tx: Tx, wanted: Wanted) -> Size:
    """How many there are. Raises ExportTooWide, SheetTooLong for what cannot be written."""
    with rt.audit.reading(*wanted.categories) as reading:
        looking = await _looking(rt, tx, wanted, reading)
        answer = await finding.by_columns(looking, phases(wanted.order), 1, None)
        reading.only(())  # whom it opened to judge them is in no answer
        if answer.truncated:
            raise ExportTooWide(most=search_queries.MOST_LISTED)
        if wanted.form == pb.EXPORT_FORMAT_XLSX and await _too_many(tx, looking, answer):
            raise SheetTooLong(most=MOST_ROWS)
    return Size(answer.total, answer.estimated)


async def _too_many(tx: Tx, looking: Looking, answer: finding.Answer) -> bool:
    if not looking.query.text and answer.estimated:
        return await search_queries.more_than(tx, looking.scope, MOST_ROWS)
    return not answer.estimated and answer.total > MOST_ROWS


class Walk:
    """One way through an export's customers. `position` is JSON, and None at the beginning and at the end."""

    def __init__(self, rt: "Runtime", wanted: Wanted, position: Position | None = None) -> None:
        self.position = position
        self.finished = False
        self._rt = rt
        self._wanted = wanted

    async def pages(self) -> AsyncIterator[list[Person]]:
        """The customers, in pages; each is noted as read, and `position` is behind it."""
        while not self.finished:
            yield await self._page()

    async def _page(self) -> list[Person]:
        rt, wanted = self._rt, self._wanted
        keys = rt.keys.for_tenant(callers.current().tenant())
        with rt.audit.reading(*wanted.categories) as reading:
            async with rt.db.read() as tx:
                looking = await _looking(rt, tx, wanted, reading)
                answer = await finding.by_columns(looking, phases(wanted.order), PAGE, _typed(self.position))
                rows = await queries.people(tx, wanted.business_id, answer.ids, wanted.needs)
            found: list[Person] = []
            for at in range(0, len(rows), AT_ONCE):
                found += [
                    queries.opened(row, keys, reading, wanted.business_id, wanted.needs)
                    for row in rows[at : at + AT_ONCE]
                ]
                await asyncio.sleep(0)
            reading.only(person.customer_id for person in found)
        self.position = _plain(answer.position)
        self.finished = answer.position is None
        return found


async def _looking(rt: "Runtime", tx: Tx, wanted: Wanted, reading: Any) -> Looking:
    keys, live = rt.keys.for_tenant(tx.tenant_id), await live_versions(tx)
    version, given = live.current[Kind.SEARCH], dict(wanted.given)
    if wanted.search.city.strip():
        given["city"] = tokens.of_city(tokens.with_version(keys, version), wanted.search.city)
    return Looking(
        tx=tx,
        keys=keys,
        live=live,
        reading=reading,
        scope=Scope(wanted.business_id, version, given),
        query=rules.query_of(wanted.search.query),
        compared=search_wire.compared(replace(callers.current(), masks=wanted.masks))[0],
        country=wanted.country,
    )


def order_of(columns: Sequence[Order]) -> Sequence[Order]:
    """The order of an export: relevance is none."""
    return columns or (NEWEST,)


def _plain(position: Position | None) -> Position | None:
    return position and [
        {"id": str(value)}
        if isinstance(value, UUID)
        else {"at": value.isoformat()}
        if isinstance(value, datetime)
        else value
        for value in position
    ]


def _typed(position: Position | None) -> Position | None:
    return position and [_typed_one(value) if isinstance(value, dict) else value for value in position]


def _typed_one(value: Mapping[str, str]) -> UUID | datetime:
    return UUID(value["id"]) if "id" in value else datetime.fromisoformat(value["at"])
