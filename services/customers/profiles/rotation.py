"""This service's part in rotating keys: identifiers get the new version of their key, then lose the old one."""

from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Text, Uuid, bindparam, delete, select, text

from libs.audit import Audit
from libs.crypto import Keys, Kind, live_versions
from libs.crypto.rotation import Batch, Change, Rotation
from libs.db import Tx
from services.customers.profiles import queries
from services.customers.profiles.identifiers import identifiers_of
from services.customers.tables import customer_identifiers, customers

ROWS = 500

_mine = customer_identifiers.c
_ADD = text("""
    insert into customer_identifiers (tenant_id, kind, key_version, bidx, customer_id)
    select :tenant, added.kind, :version, added.bidx, added.customer_id
    from unnest(:kinds, :digests, :customers) as added (kind, bidx, customer_id)
    on conflict do nothing
""").bindparams(
    bindparam("kinds", type_=ARRAY(Text)),
    bindparam("digests", type_=ARRAY(LargeBinary)),
    bindparam("customers", type_=ARRAY(Uuid)),
)


def rotation_of_identifiers(keys: Keys, audit: Audit, leaving: int) -> Rotation:
    """The rotation of the key of blind indexes, away from version `leaving`."""

    async def fill(tx: Tx, change: Change, after: UUID | None) -> Batch:
        wanted = select(_mine.customer_id).where(
            _mine.tenant_id == tx.tenant_id, _mine.key_version == change.old
        )
        if after:
            wanted = wanted.where(_mine.customer_id > after)
        found = await tx.execute(wanted.distinct().order_by(_mine.customer_id).limit(ROWS))
        ids = list(found.scalars())
        if not ids:
            return Batch(0, None)
        # Nobody changes an e-mail between our reading it and our writing its fingerprint.
        who = customers.c
        locked = select(who.customer_id).where(who.tenant_id == tx.tenant_id, who.customer_id.in_(ids))
        await tx.execute(locked.order_by(who.customer_id).with_for_update(key_share=True))
        tenant, live = keys.for_tenant(tx.tenant_id), await live_versions(tx)
        with audit.reading("user.contact", "user.unique_id") as reading:
            people = await queries.everywhere(tx, tenant, reading, ids)
        added = [
            (kind, index.digest, customer_id)
            for customer_id, views in people.items()
            if not all(view.deleted_at for view in views)
            for kind, value in identifiers_of(views)
            for index in tenant.blind_indexes(live, kind, value)
            if index.key_version == change.new
        ]
        if not added:
            return Batch(0, ids[-1])
        kinds, digests, whose = (list(column) for column in zip(*sorted(added), strict=True))
        done = await tx.execute(
            _ADD,
            {
                "tenant": tx.tenant_id,
                "version": change.new,
                "kinds": kinds,
                "digests": digests,
                "customers": whose,
            },
        )
        return Batch(done.rowcount, ids[-1])

    async def drain(tx: Tx, change: Change, after: UUID | None) -> Batch:
        some = (
            select(_mine.kind, _mine.bidx)
            .where(_mine.tenant_id == tx.tenant_id, _mine.key_version == change.old)
            .limit(ROWS * 4)
            .subquery()
        )
        done = await tx.execute(
            delete(customer_identifiers).where(
                _mine.tenant_id == tx.tenant_id,
                _mine.key_version == change.old,
                _mine.kind == some.c.kind,
                _mine.bidx == some.c.bidx,
            )
        )
        return Batch(done.rowcount, UUID(int=done.rowcount) if done.rowcount else None)

    return Rotation(kind=Kind.IDENTIFIER, leaving=leaving, fill=fill, drain=drain)
