"""Writes about addresses. The customer's row is locked by whoever calls: it guards the one default."""

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import delete, insert, select, update

from libs.crypto import DataKey, TenantKeys
from libs.db import Tx
from libs.problems import EtagMismatch
from regulars.customers.v1 import addresses_pb2 as pb
from services.customers.addresses import queries, rules
from services.customers.addresses.queries import SEALED, VERIFICATION, AddressView
from services.customers.addresses.rules import MAX_ADDRESSES, Decision, Place
from services.customers.problems import AddressNotFound, DefaultAddressNeeded, TooManyAddresses
from services.customers.profiles.actions import touch
from services.customers.profiles.queries import View
from services.customers.tables import addresses

_mine = addresses.c


async def create_address(
    tx: Tx, keys: TenantKeys, customer: View, address_id: UUID, place: Place, message: pb.Address, etag: str
) -> View:
    """Adds an address; gives the customer's new version. Emits CustomerUpdated.

    Raises EtagMismatch, TooManyAddresses.
    """
    _unchanged_since(customer, etag)
    there = await queries.count(tx, customer.customer_id)
    if there >= MAX_ADDRESSES:
        raise TooManyAddresses(limit=MAX_ADDRESSES)
    is_default = message.default or not there
    if is_default:
        await _no_default(tx, customer.customer_id)
    row = {
        "tenant_id": tx.tenant_id,
        "customer_id": customer.customer_id,
        "address_id": address_id,
        "key_id": _key(customer).key_id,
        "type": int(message.type or pb.ADDRESS_TYPE_BOTH),
        "is_default": is_default,
        "sealed": _seal(keys, customer, address_id, place),
        "created_at": tx.now,
        "updated_at": tx.now,
        "verification": rules.PENDING,
        "verification_at": tx.now,
    }
    await tx.execute(insert(addresses).values(row))
    return await touch(tx, customer, ["addresses"])


async def update_address(
    tx: Tx,
    keys: TenantKeys,
    customer: View,
    before: AddressView,
    place: Place,
    message: pb.Address,
    paths: frozenset[str],
    etag: str,
) -> View:
    """Changes an address; gives the customer's new version. Emits CustomerUpdated, unless nothing changed.

    Raises EtagMismatch, DefaultAddressNeeded.
    """
    _unchanged_since(customer, etag)
    values: dict[str, Any] = {}
    if "type" in paths and message.type and message.type != before.type:
        values["type"] = int(message.type)
    if "default" in paths and message.default != before.is_default:
        if before.is_default:
            if message.HasField("default"):
                raise DefaultAddressNeeded
        else:
            await _no_default(tx, customer.customer_id)
            values["is_default"] = True
    if place != before.place:
        values |= {
            "key_id": _key(customer).key_id,
            "sealed": _seal(keys, customer, before.address_id, place),
        }
        if rules.moved(before.place, place):
            values |= {
                "verification": rules.PENDING,
                "verification_at": tx.now,
                "verification_sealed": None,
            }
    if not values:
        return customer
    await tx.execute(
        update(addresses)
        .where(*_at(tx, customer.customer_id), _mine.address_id == before.address_id)
        .values(**values, updated_at=tx.now)
    )
    return await touch(tx, customer, ["addresses"])


async def verify_address(
    tx: Tx, keys: TenantKeys, customer: View, before: AddressView, decision: Decision, etag: str
) -> View:
    """Decides on an address; gives the customer's new version. Emits CustomerUpdated, unless nothing changed.

    Raises EtagMismatch.
    """
    _unchanged_since(customer, etag)
    place, was = rules.located(before.place, decision), before.verification
    if place == before.place and (was.status, was.notes) == (decision.status, decision.notes):
        return customer
    caller = tx.caller
    noted = {
        "by": caller.on_behalf_of or caller.subject,
        "by_name": caller.display_name or "",
        "notes": decision.notes,
    }
    key = _key(customer)
    await tx.execute(
        update(addresses)
        .where(*_at(tx, customer.customer_id), _mine.address_id == before.address_id)
        .values(
            key_id=key.key_id,
            sealed=_seal(keys, customer, before.address_id, place),
            verification=decision.status,
            verification_at=tx.now,
            verification_sealed=keys.seal(key, VERIFICATION, before.address_id, orjson.dumps(noted)),
            updated_at=tx.now,
        )
    )
    return await touch(tx, customer, ["addresses"])


async def delete_address(tx: Tx, customer: View, address_id: UUID, etag: str) -> None:
    """Deletes an address; the newest of the others becomes the default if it was. Emits CustomerUpdated.

    Raises EtagMismatch, AddressNotFound.
    """
    _unchanged_since(customer, etag)
    gone = await tx.execute(
        delete(addresses)
        .where(*_at(tx, customer.customer_id), _mine.address_id == address_id)
        .returning(_mine.is_default)
    )
    was_default = gone.scalar_one_or_none()
    if was_default is None:
        raise AddressNotFound
    if was_default:
        newest = select(_mine.address_id).where(*_at(tx, customer.customer_id))
        await tx.execute(
            update(addresses)
            .where(
                *_at(tx, customer.customer_id),
                _mine.address_id == newest.order_by(_mine.address_id.desc()).limit(1).scalar_subquery(),
            )
            .values(is_default=True)
        )
    await touch(tx, customer, ["addresses"])


async def _no_default(tx: Tx, customer_id: UUID) -> None:
    await tx.execute(
        update(addresses).where(*_at(tx, customer_id), _mine.is_default).values(is_default=False)
    )


def _at(tx: Tx, customer_id: UUID) -> tuple[Any, ...]:
    return _mine.tenant_id == tx.tenant_id, _mine.customer_id == customer_id


def _seal(keys: TenantKeys, customer: View, address_id: UUID, place: Place) -> bytes:
    return keys.seal(_key(customer), SEALED, address_id, orjson.dumps(place.known()))


def _key(customer: View) -> DataKey:
    assert customer.key is not None, "an address is sealed under a key that was opened"
    return customer.key


def _unchanged_since(customer: View, etag: str) -> None:
    if etag and etag != str(customer.version):
        raise EtagMismatch
