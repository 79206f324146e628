"""Reads about businesses, programs and their rules; the one place that says which of them a request means."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import ARRAY, Row, Select, Uuid, and_, any_, bindparam, func, or_, select, text

from libs import arrays
from libs.db import Tx
from libs.pipeline import Query, Step
from libs.problems import InvalidArgument
from services.loyalty.problems import ProgramNotFound, RuleNotFound
from services.loyalty.programs import rules
from services.loyalty.programs.rules import Rule, Settings
from services.loyalty.programs.tables import earning_rules, programs
from services.loyalty.tables import businesses
from services.loyalty.tiers.tables import tier_configurations

_b, _p, _r, _t = businesses.c, programs.c, earning_rules.c, tier_configurations.c
_TIERS = (
    select(func.max(_t.version))
    .where(_t.tenant_id == _p.tenant_id, _t.program_id == _p.program_id)
    .scalar_subquery()
)
_PROGRAM: Select[Any] = select(
    programs, _b.currency, _b.time_zone, _b.archived, _TIERS.label("tiers_version")
).join(businesses, and_(_b.tenant_id == _p.tenant_id, _b.business_id == _p.business_id))


_TENANT = _p.tenant_id == bindparam("tenant", type_=Uuid)
_BY_ID = _PROGRAM.where(_TENANT, _p.program_id == bindparam("program", type_=Uuid))
_ONE, _LOCKED = Query(_BY_ID), Query(_BY_ID.with_for_update(of=programs))
_DEFAULT = Query(_PROGRAM.where(_TENANT, _p.business_id == bindparam("business", type_=Uuid), _p.is_default))


@dataclass(frozen=True, slots=True)
class Program:
    """A program with what it works by. `tiers_version`: which of its tiers held when its row was read."""

    program_id: UUID
    business_id: UUID
    is_default: bool
    active: bool
    currency: str
    zone: ZoneInfo
    settings: Settings
    tiers_version: int


async def named(tx: Tx, requested: str) -> UUID:
    """The business that a request means: the one it names, else the caller's only one.

    Raises ProgramNotFound for one that is not the caller's, InvalidArgument if there is not exactly one.
    """
    if requested:
        business_id = UUID(requested)
        if not tx.caller.sees(business_id):
            raise ProgramNotFound
        return business_id
    if tx.caller.businesses is not None:
        found: Sequence[UUID] = list(tx.caller.businesses)
    else:
        wanted = select(_b.business_id).where(_b.tenant_id == tx.tenant_id, ~_b.archived).limit(2)
        found = (await tx.execute(wanted)).scalars().all()
    if len(found) != 1:
        raise InvalidArgument.of(
            "business_id", "name the business: the caller has several or none", "REQUIRED"
        )
    return found[0]


async def row(tx: Tx, program_id: UUID, *, lock: bool = False) -> Any:
    """A program of the caller's businesses. Raises ProgramNotFound."""
    where = {"tenant": tx.tenant_id, "program": program_id}
    (found,) = await tx.together((_LOCKED if lock else _ONE, where))
    if not found or not tx.caller.sees(found[0].business_id):
        raise ProgramNotFound
    return found[0]


async def meant(tx: Tx, business_id: str, program_id: str) -> Program:
    """The program that a request means: the one it names, else the default one of the business that it means.

    Raises ProgramNotFound, InvalidArgument.
    """
    if program_id:
        found = await row(tx, UUID(program_id))
        if business_id and found.business_id != UUID(business_id):
            raise ProgramNotFound
        return program_of(found)
    here = await named(tx, business_id)
    (default,) = await tx.together((_DEFAULT, {"tenant": tx.tenant_id, "business": here}))
    if not default:
        raise ProgramNotFound
    return program_of(default[0])


async def of_business(tx: Tx, business_id: UUID) -> list[Row[Any]]:
    """The programs of a business, the default one first, then newest first."""
    wanted = _PROGRAM.where(_p.tenant_id == tx.tenant_id, _p.business_id == business_id)
    return list((await tx.execute(wanted.order_by(_p.is_default.desc(), _p.program_id.desc()))).all())


_OF_BUSINESSES = Query(
    _PROGRAM.where(
        _p.tenant_id == bindparam("tenant", type_=Uuid),
        _p.business_id == any_(bindparam("businesses", type_=ARRAY(Uuid))),
    ).order_by(_p.is_default.desc(), _p.program_id.desc())
)
_RULES = Query(
    text("""
    select r.* from earning_rules r
    where r.tenant_id = :tenant and r.program_id = any(:programs)
      and (r.holds_until is null or r.holds_until > :now)
""")
)


def asked_of_businesses(tx: Tx, business_ids: Collection[UUID]) -> Step:
    """What gives the programs of businesses, as `of_business` does of one."""
    return _OF_BUSINESSES, {"tenant": tx.tenant_id, "businesses": arrays.uuids(list(business_ids))}


def asked_rules(tx: Tx, program_ids: Collection[UUID]) -> Step:
    """What gives the versions of programs' rules that hold now; also one that was replaced since `tx.now`."""
    return _RULES, {"tenant": tx.tenant_id, "programs": arrays.uuids(list(program_ids)), "now": tx.now}


async def all_of_tenant(tx: Tx) -> list[Program]:
    """All programs of the tenant."""
    rows = await tx.execute(_PROGRAM.where(_p.tenant_id == tx.tenant_id).order_by(_p.program_id))
    return [program_of(row) for row in rows]


async def count(tx: Tx, business_id: UUID) -> int:
    """How many programs a business has."""
    wanted = select(func.count()).where(_p.tenant_id == tx.tenant_id, _p.business_id == business_id)
    return int(await tx.scalar(wanted))


async def business(tx: Tx, business_id: UUID, *, lock: bool = False) -> Row[Any] | None:
    """What was heard of a business, or None."""
    wanted = select(businesses).where(_b.tenant_id == tx.tenant_id, _b.business_id == business_id)
    return (await tx.execute(wanted.with_for_update() if lock else wanted)).first()


async def rule_row(tx: Tx, rule_id: UUID, *, lock: bool = False) -> Row[Any]:
    """The version of a rule that holds; `lock`: its program's rules change one after another. Raises RuleNotFound."""
    wanted = select(earning_rules).where(
        _r.tenant_id == tx.tenant_id, _r.rule_id == rule_id, _r.holds_until.is_(None)
    )
    found = (await tx.execute(wanted)).first()
    if found is None or not tx.caller.sees(found.business_id):
        raise RuleNotFound
    if lock:
        await row(tx, found.program_id, lock=True)
        return await rule_row(tx, rule_id)
    return found


async def rule_rows(tx: Tx, program_id: UUID, since: datetime | None = None) -> list[Row[Any]]:
    """The versions of a program's rules that hold now, or held at any time since an instant."""
    wanted = select(earning_rules).where(_r.tenant_id == tx.tenant_id, _r.program_id == program_id)
    if since is None:
        wanted = wanted.where(_r.holds_until.is_(None))
    else:
        wanted = wanted.where(or_(_r.holds_until.is_(None), _r.holds_until > since))
    return list((await tx.execute(wanted)).all())


class RuleBook:
    """The rules of a program, now and as they were. `ever` are all versions that are known."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._versions = [
            (row.holds_from, row.holds_until, rules.rule_of(row.rule_id, row.definition)) for row in rows
        ]
        self.now = [rule for _, until, rule in self._versions if until is None]
        self.ever = [rule for _, _, rule in self._versions]

    def at(self, instant: datetime) -> list[Rule]:
        """Those that held at an instant."""
        return [
            rule
            for since, until, rule in self._versions
            if since <= instant and (until is None or instant < until)
        ]


async def rule_book(tx: Tx, program_id: UUID, since: datetime | None = None) -> RuleBook:
    """The rules of a program that hold now, and those that held at any time since an instant."""
    return RuleBook(await rule_rows(tx, program_id, since))


def program_of(found: Any) -> Program:
    """A program's row, as it works."""
    return Program(
        program_id=found.program_id,
        business_id=found.business_id,
        is_default=found.is_default,
        active=found.active and not found.archived,
        currency=found.currency,
        zone=ZoneInfo(found.time_zone),
        settings=rules.settings_of(found.settings),
        tiers_version=found.tiers_version,
    )
