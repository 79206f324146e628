"""The default addresses of a chunk: written with new customers, replaced for known ones, given back by an undo."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text, update

from libs import arrays
from libs.audit import Reading
from libs.crypto import DataKey, LiveVersions, TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.pipeline import Query
from regulars.customers.v1 import addresses_pb2 as pb
from services.customers.addresses import actions, queries, rules
from services.customers.addresses.queries import SEALED, VERIFICATION, AddressView
from services.customers.addresses.rules import Place
from services.customers.profiles.queries import View
from services.customers.search import actions as search
from services.customers.tables import addresses

_ADD = Query(
    text("""
    insert into addresses (tenant_id, customer_id, address_id, key_id, type, is_default, sealed, created_at,
                           updated_at, verification, verification_at)
    select :tenant, n.customer_id, n.address_id, n.key_id, :both, true, n.sealed, :now, :now,
           :pending, :now
    from unnest(:homed, :homes, :home_keys, :sealed_homes) as n (customer_id, address_id, key_id, sealed)
    where n.customer_id <> all (:without)
""")
)


@dataclass(slots=True)
class Homes:
    """Addresses of people who are to be created, sealed."""

    customers: list[UUID] = field(default_factory=list)
    ids: list[UUID] = field(default_factory=list)
    keys: list[UUID] = field(default_factory=list)
    sealed: list[bytes] = field(default_factory=list)

    def add(self, keys: TenantKeys, key: DataKey, customer_id: UUID, place: Place) -> None:
        """Seals one under the person's own key."""
        address_id = new_id()
        self.customers.append(customer_id)
        self.ids.append(address_id)
        self.keys.append(key.key_id)
        self.sealed.append(keys.seal(key, SEALED, address_id, orjson.dumps(place.known())))

    def step(self, where: Mapping[str, Any]) -> tuple[Query, Mapping[str, Any]]:
        """The statement that writes them, but for those in `where["without"]`."""
        mine = {
            "homed": arrays.uuids(self.customers),
            "homes": arrays.uuids(self.ids),
            "home_keys": arrays.uuids(self.keys),
            "sealed_homes": arrays.octets(self.sealed),
            "both": int(pb.ADDRESS_TYPE_BOTH),
            "pending": rules.PENDING,
        }
        return _ADD, {**where, **mine}


async def defaults(
    tx: Tx, keys: TenantKeys, reading: Reading, customer_ids: Collection[UUID]
) -> dict[UUID, AddressView]:
    """The default addresses of these customers, of those who have one."""
    return await queries.default_views(tx, keys, reading, list(customer_ids)) if customer_ids else {}


async def settle(
    tx: Tx, keys: TenantKeys, live: LiveVersions, customer: View, before: AddressView | None, place: Place
) -> View:
    """Makes a place the customer's default address; gives the customer's new version. Emits CustomerUpdated."""
    if before is None:
        message = pb.Address(default=True)
        after = await actions.create_address(tx, keys, customer, new_id(), place, message, "")
    else:
        after = await actions.update_address(tx, keys, customer, before, place, pb.Address(), frozenset(), "")
    await search.follow_default(tx, keys, live, customer.customer_id, place)
    return after


def snapshot(before: AddressView | None) -> dict[str, object]:
    """What an undo needs to know of a default address; empty if there was none."""
    if before is None:
        return {}
    decided = before.verification
    return {
        "id": str(before.address_id),
        "place": before.place.known(),
        "verification": [decided.status, decided.at, decided.by, decided.by_name, decided.notes],
    }


async def put_back(
    tx: Tx, keys: TenantKeys, reading: Reading, live: LiveVersions, customer: View, known: Mapping[str, Any]
) -> View:
    """Gives a customer the default address of a snapshot back; gives their new version. Emits CustomerUpdated."""
    now = (await defaults(tx, keys, reading, [customer.customer_id])).get(customer.customer_id)
    if now is None:
        return customer
    if not known:
        await actions.delete_address(tx, customer, now.address_id, "")
        left = (await defaults(tx, keys, reading, [customer.customer_id])).get(customer.customer_id)
        await search.follow_default(tx, keys, live, customer.customer_id, left.place if left else None)
        return replace(customer, version=customer.version + 1)
    place = Place.of(known["place"])
    after = await actions.update_address(tx, keys, customer, now, place, pb.Address(), frozenset(), "")
    status, at, by, by_name, notes = known["verification"]
    assert customer.key is not None
    noted = {"by": by, "by_name": by_name, "notes": notes}
    await tx.execute(
        update(addresses)
        .where(
            addresses.c.tenant_id == tx.tenant_id,
            addresses.c.customer_id == customer.customer_id,
            addresses.c.address_id == now.address_id,
        )
        .values(
            key_id=customer.key.key_id,
            sealed=keys.seal(customer.key, SEALED, now.address_id, orjson.dumps(place.known())),
            verification=status,
            verification_at=datetime.fromisoformat(at),
            verification_sealed=keys.seal(customer.key, VERIFICATION, now.address_id, orjson.dumps(noted))
            if status != rules.PENDING
            else None,
        )
    )
    await search.follow_default(tx, keys, live, customer.customer_id, place)
    return after
