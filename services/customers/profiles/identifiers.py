"""What finds a customer and is unique: e-mail, phone and external ids, as fingerprints under every live key."""

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from sqlalchemy import ARRAY, Integer, LargeBinary, Text, Uuid, delete, select, text
from sqlalchemy.sql import bindparam

from libs.crypto import LiveVersions, TenantKeys
from libs.db import Tx
from libs.pipeline import Query, Step
from libs.problems import Problem
from services.customers.problems import EmailTaken, ExternalIdTaken, PhoneTaken
from services.customers.profiles import rules
from services.customers.profiles.queries import View
from services.customers.tables import customer_identifiers, memberships

_TAKEN: dict[str, type[Problem]] = {
    "email": EmailTaken,
    "phone": PhoneTaken,
    "external_id": ExternalIdTaken,
}

_CLAIM = Query(
    text("""
    insert into customer_identifiers (tenant_id, kind, key_version, bidx, customer_id)
    select :tenant, claimed.kind, claimed.key_version, claimed.bidx, claimed.customer_id
    from unnest(:kinds, :versions, :digests, :customers) as claimed (kind, key_version, bidx, customer_id)
    on conflict do nothing
    returning kind, key_version, bidx, customer_id
""").bindparams(
        bindparam("kinds", type_=ARRAY(Text)),
        bindparam("versions", type_=ARRAY(Integer)),
        bindparam("digests", type_=ARRAY(LargeBinary)),
        bindparam("customers", type_=ARRAY(Uuid)),
    )
)
# (kind, version of the key, fingerprint, for whom)
Claim = tuple[str, int, bytes, UUID]


def identifiers_of(views: Sequence[View]) -> set[tuple[str, str]]:
    """Everything that finds a customer, as (kind, normalised value), from all of their memberships."""
    return rules.identifiers(views[0].profile, {view.business_id: view.standing for view in views})


async def claim(
    tx: Tx, keys: TenantKeys, live: LiveVersions, customer_id: UUID, wanted: set[tuple[str, str]]
) -> None:
    """Takes identifiers for a customer, under every live key version.

    Raises EmailTaken, PhoneTaken or ExternalIdTaken, with the holder's id if the caller sees them.
    """
    claims = claims_of(keys, live, {customer_id: wanted})
    if claims:
        (got,) = await tx.together(claiming(tx, claims))
        await check(tx, claims, got)


def claims_of(
    keys: TenantKeys, live: LiveVersions, wanted: Mapping[UUID, set[tuple[str, str]]]
) -> list[Claim]:
    """What to claim for customers who want these identifiers, under every live key version.

    In one order for everyone, so that two who want the same identifiers never wait for each other.
    """
    return sorted(
        (kind, index.key_version, index.digest, customer_id)
        for customer_id, values in wanted.items()
        for kind, value in values
        for index in keys.blind_indexes(live, kind, value)
    )


def claiming(tx: Tx, claims: Sequence[Claim]) -> Step:
    """The statement that takes what is free of `claims`, and gives it; `check` its rows."""
    kinds, versions, digests, customers = ([each[i] for each in claims] for i in range(4))
    columns = {"kinds": kinds, "versions": versions, "digests": digests, "customers": customers}
    return _CLAIM, {"tenant": tx.tenant_id, **columns}


async def check(tx: Tx, claims: Sequence[Claim], got: Iterable[Claim]) -> None:
    """Raises as `claim` unless all of `claims` were got."""
    taken = set(got)
    refused = [claim for claim in claims if claim not in taken]
    if refused:
        await _refuse(tx, *refused[0][:3])


async def _refuse(tx: Tx, kind: str, version: int, digest: bytes) -> None:
    mine, theirs = customer_identifiers.c, memberships.c
    seen = select(theirs.customer_id).where(
        theirs.tenant_id == tx.tenant_id,
        theirs.customer_id == mine.customer_id,
        theirs.deleted_at.is_(None),
    )
    holder = await tx.scalar(
        select(mine.customer_id).where(
            mine.tenant_id == tx.tenant_id,
            mine.kind == kind,
            mine.key_version == version,
            mine.bidx == digest,
            seen.exists(),
        )
    )
    field = {"external_id": "sources"}.get(kind, kind)
    taken = _TAKEN[kind]
    raise taken(field=f"customer.{field}", customer_id=holder) if holder else taken(field=f"customer.{field}")


async def release(
    tx: Tx, keys: TenantKeys, live: LiveVersions, customer_id: UUID, values: set[tuple[str, str]]
) -> None:
    """Frees identifiers of a customer for others."""
    mine = customer_identifiers.c
    for kind, value in sorted(values):
        digests = [index.digest for index in keys.blind_indexes(live, kind, value)]
        await tx.execute(
            delete(customer_identifiers).where(
                mine.tenant_id == tx.tenant_id,
                mine.kind == kind,
                mine.bidx.in_(digests),
                mine.customer_id == customer_id,
            )
        )


async def forget(tx: Tx, customer_id: UUID) -> None:
    """Frees every identifier of a customer."""
    mine = customer_identifiers.c
    await tx.execute(
        delete(customer_identifiers).where(mine.tenant_id == tx.tenant_id, mine.customer_id == customer_id)
    )
