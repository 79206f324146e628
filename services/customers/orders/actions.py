"""Writes about orders: a chunk of records in one transaction, locks in the order of their keys."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import ARRAY, Row, Text, text
from sqlalchemy.sql import bindparam

from libs.crypto import DataKey, TenantKeys, live_versions
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.outbox import Fact, emit_all
from libs.problems import Conflict, Problem
from regulars.customers.v1 import events_pb2 as events
from regulars.customers.v1 import orders_pb2 as pb
from services.customers.orders import buyers, metrics, rules, wire
from services.customers.orders.buyers import Person
from services.customers.orders.queries import SEALED
from services.customers.orders.rules import Change, Order, Tally, Terms, Told
from services.customers.orders.wire import Record, ToldOrder, ToldRefund

Key = tuple[str, str]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVENTS: Mapping[str, Any] = {
    "recorded": events.OrderRecorded,
    "completed": events.OrderCompleted,
    "cancelled": events.OrderCancelled,
    "refunded": events.OrderRefunded,
    "fulfilled": events.OrderFulfilled,
    "delivered": events.OrderDelivered,
}

# Every look-up is by a whole key, one after another: a plan made while the tables were small, or were never
# analysed, must not scan them later. Hence the settings, and `lateral`, which leaves the planner no other order.
_BY_KEY = text("""
    select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
           set_config('enable_mergejoin', 'off', true), set_config('enable_bitmapscan', 'off', true)
""")
_KEYS = {"sources": bindparam("sources", type_=ARRAY(Text)), "ids": bindparam("ids", type_=ARRAY(Text))}
_KNOWN = text("""
    select k.source, k.external_id, o.customer_id
    from unnest(:sources, :ids) as k (source, external_id)
    cross join lateral (
        select o.customer_id from orders o
        where o.tenant_id = :tenant and o.business_id = :business
          and o.source = k.source and o.external_id = k.external_id limit 1
    ) o
""").bindparams(*_KEYS.values())
# The keys come sorted, and rows are locked in their order.
_LOCKED = text("""
    select o.* from unnest(:sources, :ids) as k (source, external_id)
    cross join lateral (
        select o.* from orders o
        where o.tenant_id = :tenant and o.business_id = :business
          and o.source = k.source and o.external_id = k.external_id limit 1 for update
    ) o
""").bindparams(*_KEYS.values())

_COLUMNS = {
    "order_id": "uuid",
    "customer_id": "uuid",
    "source": "text",
    "external_id": "text",
    "revision": "bigint",
    "content": "text",
    "version": "bigint",
    "status": "smallint",
    "placed_at": "timestamptz",
    "local_day": "date",
    "completed_at": "timestamptz",
    "fulfilled_at": "timestamptz",
    "delivered_at": "timestamptz",
    "channel": "text",
    "store": "text",
    "items": "jsonb",
    "quantity": "bigint",
    "tax_included": "boolean",
    "subtotal_minor": "bigint",
    "discount_minor": "bigint",
    "shipping_minor": "bigint",
    "tax_minor": "bigint",
    "total_minor": "bigint",
    "refunded_minor": "bigint",
    "refund_notice_minor": "bigint",
    "tags": "text[]",
    "payments": "jsonb",
    "deliveries": "jsonb",
    "key_id": "uuid",
    "sealed": "text",
}
_BYTES = {"content", "sealed"}
_ROWS = "jsonb_to_recordset(cast(:rows as jsonb)) as r ({})".format(
    ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
)
_VALUES = {name: f"decode(r.{name}, 'hex')" if name in _BYTES else f"r.{name}" for name in _COLUMNS}
_INSERT = text(f"""
    insert into orders (tenant_id, business_id, created_at, updated_at, {", ".join(_COLUMNS)})
    select :tenant, :business, :now, :now, {", ".join(_VALUES.values())} from {_ROWS}
    on conflict on constraint orders_external_id_key do nothing
""")  # noqa: S608 – names of ours
# What is sealed stays as it is where no new revision came: `key_id` of such rows is left out.
_UPDATE = text(f"""
    update orders o
    set updated_at = :now,
        {", ".join(f"{name} = {value}" for name, value in _VALUES.items() if name not in ("key_id", "sealed"))},
        key_id = case when r.reseal then r.key_id else o.key_id end,
        sealed = case when r.reseal then {_VALUES["sealed"]} else o.sealed end
    from {_ROWS.removesuffix(")")}, reseal boolean)
    where o.tenant_id = :tenant and o.order_id = :order
""")  # noqa: S608


class Raced(Conflict):
    """Somebody else recorded one of these orders meanwhile: begin again, and it is found."""


@dataclass(slots=True)
class _Kept:
    """One order of the chunk: as it was, as it is now, and what a new revision wants sealed."""

    before: Order | None
    after: Order | None
    private: Mapping[str, object] | None = None


async def record_orders(
    tx: Tx, keys: TenantKeys, business: Row[Any], records: Sequence[Record]
) -> list[pb.RecordResult | Problem]:
    """Records orders and refunds of one business; gives for each what became of it, or why it was refused.

    Emits OrderRecorded, and OrderCompleted, OrderCancelled, OrderRefunded, OrderFulfilled, OrderDelivered where
    it became so. Raises Conflict, or EmailTaken, PhoneTaken, ExternalIdTaken, where another transaction came in
    between: nothing is written, and the same call succeeds once the other one has ended.
    """
    terms = Terms(tx.now, business.order_completion, ZoneInfo(business.time_zone))
    wanted = sorted({record.key for record in records})
    await tx.execute(_BY_KEY)
    people, refused = await _people(tx, keys, business, records, wanted)
    kept = await _locked(tx, business.business_id, wanted)
    results: list[pb.RecordResult | Problem] = []
    facts: list[Fact] = []
    for record in records:
        state = kept.setdefault(record.key, _Kept(None, None))
        try:
            change, guest = _apply(state, record, people, refused, terms)
        except Raced:
            raise
        except Problem as problem:
            results.append(problem)
            continue
        if isinstance(record, ToldOrder) and "recorded" in change.events:
            state.private = record.private
        state.after = change.after
        facts += facts_of(business, change)
        results.append(wire.result(change.outcome, change.after, guest=guest))
    changed = [
        each for _, each in sorted(kept.items()) if each.after is not None and each.after != each.before
    ]
    await _write(tx, keys, business.business_id, changed, people)
    tally = Tally()
    for each in changed:
        if each.after is not None:
            tally.change(each.before, each.after)
    await metrics.write(tx, business.business_id, tally)
    await emit_all(tx, facts)
    return results


@dataclass(slots=True)
class _People:
    """Whom the chunk's orders belong to: by order key, and everybody by id."""

    of: dict[Key, UUID]
    by_id: dict[UUID, Person]
    guests: set[Key]


async def _people(
    tx: Tx, keys: TenantKeys, business: Row[Any], records: Sequence[Record], wanted: Sequence[Key]
) -> tuple[_People, dict[Key, Problem]]:
    """The customers of all orders, locked; guests are made. And why the orders of nobody are refused."""
    where = {"tenant": tx.tenant_id, "business": business.business_id, **_arrays(wanted)}
    known = {
        (row.source, row.external_id): row.customer_id
        for row in await tx.execute(_KNOWN, where)
        if row.customer_id
    }
    fresh: dict[Key, ToldOrder] = {}
    for record in records:
        if isinstance(record, ToldOrder) and record.key not in known:
            fresh.setdefault(record.key, record)
    of, refused, strangers = dict(known), {}, {}
    if fresh:
        live = await live_versions(tx)
        found = await buyers.find(
            tx, keys, live, business.business_id, [each.buyer for each in fresh.values()]
        )
        for (key, order), who in zip(fresh.items(), found, strict=True):
            if isinstance(who, Problem):
                refused[key] = who
            elif who is None:
                strangers[key] = order
            else:
                of[key] = who
    source = next(iter(fresh.values())).told.source if fresh else "manual"
    by_id = await buyers.lock(tx, keys, business, of.values(), source)
    guests: set[Key] = set()
    if strangers:
        for key, person in (await buyers.make_guests(tx, keys, business, strangers)).items():
            of[key], by_id[person.customer_id] = person.customer_id, person
            if person.is_new:
                guests.add(key)
    return _People(of, by_id, guests), refused


async def _locked(tx: Tx, business_id: UUID, wanted: Sequence[Key]) -> dict[Key, _Kept]:
    where = {"tenant": tx.tenant_id, "business": business_id, **_arrays(wanted)}
    kept = {}
    for row in await tx.execute(_LOCKED, where):
        order = order_of(row)
        kept[row.source, row.external_id] = _Kept(order, order)
    return kept


def _apply(
    state: _Kept, record: Record, people: _People, refused: Mapping[Key, Problem], terms: Terms
) -> tuple[Change, bool]:
    """What the record makes of the order, and whether its customer is a new guest. Raises the refusal."""
    if isinstance(record, ToldRefund):
        return rules.refunded(state.after, _waiting(record, terms), record.total_minor), False
    if record.key in refused:
        raise refused[record.key]
    customer_id = people.of.get(record.key)
    mine = state.after.customer_id if state.after else None
    if customer_id is None or (mine is not None and mine != customer_id):
        raise Raced
    buyers.refuse_erased(people.by_id[customer_id])
    first = state.after is None or state.after.customer_id is None
    change = rules.recorded(state.after, record.told, terms, new_id(), customer_id)
    return change, first and record.key in people.guests


def _waiting(record: ToldRefund, terms: Terms) -> Order:
    """What is kept for an order that is known by its refund alone."""
    told = Told(
        source=record.source,
        external_id=record.external_id,
        revision=0,
        content=b"",
        status=rules.WAITING,
        placed_at=_EPOCH,
    )
    return Order(order_id=new_id(), customer_id=None, told=told, local_day=_EPOCH.date(), version=0)


async def _write(
    tx: Tx, keys: TenantKeys, business_id: UUID, changed: Sequence[_Kept], people: _People
) -> None:
    new = [_row(keys, each, people) for each in changed if each.before is None]
    old = [_row(keys, each, people) for each in changed if each.before is not None]
    where: dict[str, Any] = {"tenant": tx.tenant_id, "now": tx.now}
    if new:
        done = await tx.execute(
            _INSERT, {**where, "business": business_id, "rows": orjson.dumps(new).decode()}
        )
        if done.rowcount != len(new):
            raise Raced
    if old:
        await tx.execute(
            _UPDATE,
            [{**where, "order": row["order_id"], "rows": orjson.dumps([row]).decode()} for row in old],
        )


def _row(keys: TenantKeys, kept: _Kept, people: _People) -> dict[str, Any]:
    order = kept.after
    assert order is not None
    told = order.told
    row: dict[str, Any] = {name: getattr(told, name) for name in _TOLD}
    row |= {name: getattr(order, name) for name in _OF_ORDER}
    row["content"] = told.content.hex()
    if kept.private is not None:
        row["reseal"] = True
        if kept.private:
            key = _key(people, order)
            row["key_id"] = key.key_id
            row["sealed"] = keys.seal(key, SEALED, order.order_id, orjson.dumps(kept.private)).hex()
    else:
        row["reseal"] = False
    return row


def _key(people: _People, order: Order) -> DataKey:
    assert order.customer_id is not None
    key = people.by_id[order.customer_id].key
    assert key is not None  # `refuse_erased` saw to it
    return key


_TOLD = tuple(name for name in Told.__slots__ if name != "content")
_OF_ORDER = tuple(name for name in Order.__slots__ if name != "told")


def order_of(row: Row[Any]) -> Order:
    """The order of a row, as the rules know it."""
    values = row._mapping
    told = Told(
        **{name: values[name] for name in _TOLD if name != "tags"},
        content=bytes(row.content),
        tags=tuple(row.tags),
    )
    return Order(told=told, **{name: values[name] for name in _OF_ORDER})


def _arrays(keys: Sequence[Key]) -> dict[str, list[str]]:
    return {"sources": [source for source, _ in keys], "ids": [external_id for _, external_id in keys]}


def facts_of(business: Row[Any], change: Change) -> list[Fact]:
    """The events of a change, all with the order's state after it."""
    if not change.events:
        return []
    order, told = change.after, change.after.told
    state = events.OrderState(
        order_id=str(order.order_id),
        business_id=str(business.business_id),
        customer_id=str(order.customer_id),
        source=told.source,
        revision=told.revision,
        status=told.status,  # type: ignore[arg-type]  # the number of the enum
        placed_at=stamp(told.placed_at),
        local_day=order.local_day.isoformat(),
        channel=told.channel,
        store=told.store,
        currency=business.currency,
        subtotal_minor=told.subtotal_minor,
        discount_minor=told.discount_minor,
        shipping_minor=told.shipping_minor,
        tax_minor=told.tax_minor,
        total_minor=told.total_minor,
        refunded_total_minor=told.refunded_minor,
        completed_at=stamp(order.completed_at),
        fulfilled_at=stamp(order.fulfilled_at),
        delivered_at=stamp(order.delivered_at),
        items=[_item_fact(item) for item in told.items],
    )
    return [
        Fact(_EVENTS[name](order=state), order.order_id, order.version, business.business_id)
        for name in change.events
    ]


def _item_fact(item: Mapping[str, Any]) -> events.OrderItemFact:
    return events.OrderItemFact(
        sku=item.get("sku", ""),
        category=item.get("category", ""),
        brand=item.get("brand", ""),
        quantity=item["quantity"],
        amount_minor=item["amount_minor"],
    )
