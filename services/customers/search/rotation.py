"""This service's part in rotating the search key: customers get rows of the new version, then lose the old ones."""

from uuid import UUID

from sqlalchemy import delete, select

from libs.audit import Audit
from libs.crypto import Keys, Kind
from libs.crypto.rotation import Batch, Change, Rotation
from libs.db import Tx
from services.customers.addresses import queries as addresses
from services.customers.profiles import queries as profiles
from services.customers.search import actions
from services.customers.search.tables import customer_search
from services.customers.tables import customers

ROWS = 250
DRAINED = 2_000

_mine, _who = customer_search.c, customers.c


def rotation_of_search(keys: Keys, audit: Audit, leaving: int) -> Rotation:
    """The rotation of the search key, away from version `leaving`.

    It also makes the rows of customers who have none at all, as those have who were there before searches were.
    """

    async def fill(tx: Tx, change: Change, after: UUID | None) -> Batch:
        there = select(_mine.customer_id).where(
            _mine.tenant_id == _who.tenant_id,
            _mine.customer_id == _who.customer_id,
            _mine.key_version == change.new,
        )
        live = (_who.tenant_id == tx.tenant_id, _who.deleted_at.is_(None), _who.merged_into.is_(None))
        wanted = select(_who.customer_id).where(*live, ~there.exists())
        if after:
            wanted = wanted.where(_who.customer_id > after)
        ids = list((await tx.execute(wanted.order_by(_who.customer_id).limit(ROWS))).scalars())
        if not ids:
            return Batch(0, None)
        # Nobody changes a name between our reading it and our writing its tokens.
        locked = select(_who.customer_id).where(*live, _who.customer_id.in_(ids)).order_by(_who.customer_id)
        still = list((await tx.execute(locked.with_for_update(key_share=True))).scalars())
        tenant = keys.for_tenant(tx.tenant_id)
        with audit.reading("user.contact", "user.name", "user.unique_id") as reading:
            people = await profiles.everywhere(tx, tenant, reading, still)
            places = await addresses.defaults(tx, tenant, reading, still)
        for customer_id, views in sorted(people.items()):
            sources = {view.business_id: view.standing.sources for view in views if not view.deleted_at}
            rows = actions.rows_of(tenant, [change.new], views[0].profile, sources, places.get(customer_id))
            await actions.add(tx, customer_id, rows)
        return Batch(len(people), ids[-1])

    async def drain(tx: Tx, change: Change, after: UUID | None) -> Batch:
        old = (_mine.tenant_id == tx.tenant_id, _mine.key_version == change.old)
        some = select(_mine.customer_id).where(*old)
        if after:
            some = some.where(_mine.customer_id > after)
        some_ids = list((await tx.execute(some.order_by(_mine.customer_id).limit(DRAINED))).scalars())
        if not some_ids:
            return Batch(0, None)
        gone = await tx.execute(delete(customer_search).where(*old, _mine.customer_id.in_(some_ids)))
        return Batch(gone.rowcount, some_ids[-1])

    return Rotation(kind=Kind.SEARCH, leaving=leaving, fill=fill, drain=drain)
