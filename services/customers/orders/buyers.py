"""Whose an order is: the customer that its buyer names or is found by, locked; else a new guest."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Row, Text, Uuid, text
from sqlalchemy.sql import bindparam

from libs.crypto import DataKey, LiveVersions, TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.problems import Conflict, InvalidArgument, Problem
from regulars.customers.v1 import customers_pb2 as pb
from services.customers.orders.wire import Buyer, ToldOrder
from services.customers.problems import ErasureBegun
from services.customers.profiles.actions import create_customers
from services.customers.profiles.membership import join_business
from services.customers.profiles.rules import Profile, Source, Standing
from services.customers.profiles.wire import Written

_BY_IDENTIFIER = text("""
    select wanted.kind, wanted.bidx, i.customer_id
    from unnest(:kinds, :digests) as wanted (kind, bidx)
    cross join lateral (
        select i.customer_id from customer_identifiers i
        where i.tenant_id = :tenant and i.kind = wanted.kind and i.key_version = :version and i.bidx = wanted.bidx
        limit 1
    ) i
""").bindparams(bindparam("kinds", type_=ARRAY(Text)), bindparam("digests", type_=ARRAY(LargeBinary)))

# An id leads to the survivor of a merge. Only members of the business are found.
_BY_ID = text("""
    with recursive chain as (
        select wanted.id as asked, c.customer_id, c.merged_into, 1 as step
        from unnest(:ids) as wanted (id)
        cross join lateral (
            select c.customer_id, c.merged_into from customers c
            where c.tenant_id = :tenant and c.customer_id = wanted.id limit 1
        ) c
        union all
        select chain.asked, c.customer_id, c.merged_into, chain.step + 1
        from chain cross join lateral (
            select c.customer_id, c.merged_into from customers c
            where c.tenant_id = :tenant and c.customer_id = chain.merged_into limit 1
        ) c
        where chain.step < 20
    )
    select chain.asked, chain.customer_id from chain
    cross join lateral (
        select from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = chain.customer_id
          and (:left or m.deleted_at is null) limit 1
    ) m
    where chain.merged_into is null
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))

# The ids come sorted, and rows are locked in their order.
_LOCK = text("""
    select c.customer_id, c.erasing_at, c.merged_into, c.key_id, k.epoch, k.wrapped,
           exists (
               select from memberships m
               where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = c.customer_id
               limit 1
           ) as is_member
    from unnest(:ids) as wanted (id)
    cross join lateral (
        select c.customer_id, c.erasing_at, c.merged_into, c.key_id from customers c
        where c.tenant_id = :tenant and c.customer_id = wanted.id limit 1 for update
    ) c
    cross join lateral (
        select k.epoch, k.wrapped from subject_keys k
        where k.tenant_id = :tenant and k.key_id = c.key_id limit 1
    ) k
""").bindparams(bindparam("ids", type_=ARRAY(Uuid)))


@dataclass(frozen=True, slots=True)
class Person:
    """A customer whose row the transaction holds. `key` is None for one who is being erased."""

    customer_id: UUID
    key: DataKey | None
    is_new: bool = False


async def find(
    tx: Tx, keys: TenantKeys, live: LiveVersions, business_id: UUID, buyers: Sequence[Buyer]
) -> list[UUID | Problem | None]:
    """The customer of each buyer: by id, else by what finds them; None for nobody, a Problem for an unknown id."""
    wanted = {(kind, value) for buyer in buyers for kind, value in buyer.identifiers if not buyer.customer_id}
    indexes = {each: keys.blind_index(live, *each) for each in wanted}
    holders: dict[tuple[str, bytes], UUID] = {}
    if wanted:
        version = next(iter(indexes.values())).key_version
        where = {
            "tenant": tx.tenant_id,
            "version": version,
            "kinds": [kind for kind, _ in wanted],
            "digests": [indexes[each].digest for each in wanted],
        }
        for row in await tx.execute(_BY_IDENTIFIER, where):
            holders[row.kind, bytes(row.bidx)] = row.customer_id
    known = await members(tx, business_id, {buyer.customer_id for buyer in buyers if buyer.customer_id})

    def customer_of(buyer: Buyer) -> UUID | Problem | None:
        if buyer.customer_id:
            return known.get(buyer.customer_id) or InvalidArgument.of(
                "order.customer_id", "is no customer of the business", "CUSTOMER_NOT_FOUND"
            )
        found = (holders.get((kind, indexes[kind, value].digest)) for kind, value in buyer.identifiers)
        return next((each for each in found if each), None)

    return [customer_of(buyer) for buyer in buyers]


async def members(
    tx: Tx, business_id: UUID, customer_ids: Iterable[UUID], *, left: bool = True
) -> dict[UUID, UUID]:
    """Of these, who is a member of the business, or was (`left`): by id, who the customer is by now."""
    ids = sorted(set(customer_ids))
    if not ids:
        return {}
    where = {"tenant": tx.tenant_id, "business": business_id, "ids": ids, "left": left}
    return {row.asked: row.customer_id for row in await tx.execute(_BY_ID, where)}


async def lock(
    tx: Tx, keys: TenantKeys, business: Row[Any], customer_ids: Iterable[UUID], source: str
) -> dict[UUID, Person]:
    """The rows of these people, kept until the transaction ends; who is no member of the business becomes one.

    Raises Conflict if one was merged away meanwhile.
    """
    wanted = sorted(set(customer_ids))
    if not wanted:
        return {}
    where = {"tenant": tx.tenant_id, "business": business.business_id, "ids": wanted}
    people: dict[UUID, Person] = {}
    for row in (await tx.execute(_LOCK, where)).all():
        if row.merged_into:
            raise Conflict
        erased = row.erasing_at is not None or row.wrapped is None
        key = None if erased else keys.unwrap(row.key_id, row.epoch, row.wrapped)
        people[row.customer_id] = Person(row.customer_id, key)
        if not row.is_member:
            await join_business(tx, row.customer_id, business, source)
    return people


async def make_guests(
    tx: Tx,
    keys: TenantKeys,
    business: Row[Any],
    strangers: Mapping[tuple[str, str], ToldOrder],
) -> dict[tuple[str, str], Person]:
    """A guest for each order whose buyer nobody is, by the order's key; one guest for all orders of one buyer.

    Raises EmailTaken, PhoneTaken or ExternalIdTaken if somebody else made the same customer meanwhile.
    """
    by_identifier: dict[tuple[str, str], UUID] = {}
    guests: dict[UUID, Written] = {}
    first: dict[UUID, tuple[str, str]] = {}
    whose: dict[tuple[str, str], UUID] = {}
    for key in sorted(strangers):
        buyer = strangers[key].buyer
        guest = next((by_identifier[each] for each in buyer.identifiers if each in by_identifier), None)
        if guest is None:
            guest = new_id()
            guests[guest], first[guest] = _guest(strangers[key]), key
        whose[key] = guest
        for each in buyer.identifiers:
            by_identifier.setdefault(each, guest)
    views = await create_customers(tx, keys, business, guests)
    key_of = {view.customer_id: view.key for view in views}
    return {key: Person(guest, key_of[guest], is_new=first[guest] == key) for key, guest in whose.items()}


def _guest(order: ToldOrder) -> Written:
    buyer = order.buyer
    return Written(
        Profile(first_name=buyer.first_name, last_name=buyer.last_name, email=buyer.email, phone=buyer.phone),
        Standing(
            status=pb.CUSTOMER_STATUS_ACTIVE,
            type=pb.CUSTOMER_TYPE_GUEST,
            sources=(Source(order.told.source, order.external_customer),),
        ),
        email_verified=False,
        phone_verified=False,
        paths=frozenset(),
    )


def refuse_erased(person: Person) -> None:
    """Raises ErasureBegun for somebody whose data is being destroyed."""
    if person.key is None:
        raise ErasureBegun
