"""Writes about tags."""

from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from sqlalchemy import text, update

from libs.db import Tx
from libs.outbox import emit
from libs.problems import Faults
from regulars.customers.v1 import events_pb2 as events
from services.customers.profiles import queries, rules
from services.customers.profiles.actions import touch
from services.customers.profiles.queries import View
from services.customers.tables import memberships
from services.customers.timeline import actions as timeline

MAX_TAGS = 100


async def add_tags(tx: Tx, before: View, tags: Iterable[str]) -> View:
    """Adds tags to a locked customer. Emits CustomerUpdated if one is new. Raises InvalidArgument beyond 100."""
    after = rules.with_tags(before.standing.tags, tags)
    faults = Faults()
    if len(after) > MAX_TAGS:
        faults.add("tags", f"a customer has at most {MAX_TAGS} tags", "TOO_MANY")
    if "" in after:
        faults.add("tags", "must not be blank")
    faults.refuse()
    return await _retag(tx, before, after)


async def remove_tag(tx: Tx, before: View, tag: str) -> View:
    """Removes a tag from a locked customer. Emits CustomerUpdated if it was there."""
    return await _retag(tx, before, rules.without_tag(before.standing.tags, tag))


async def _retag(tx: Tx, before: View, tags: tuple[str, ...]) -> View:
    if tags == before.standing.tags:
        return before
    standing = replace(before.standing, tags=tags)
    mine = queries.membership_at(tx, before.business_id, before.customer_id)
    await tx.execute(update(memberships).where(*mine).values(tags=list(tags)))
    return await touch(tx, replace(before, standing=standing), ["tags"])


_RENAME = text("""
    with renamed as (
        select m.customer_id, array(
            select distinct on (lower(renamed.tag)) renamed.tag
            from (select case when lower(t) = lower(:tag) then :new_tag else t end as tag, i
                  from unnest(m.tags) with ordinality as had (t, i)) as renamed
            order by lower(renamed.tag), renamed.i
        ) as tags
        from memberships m
        where m.tenant_id = :tenant and m.business_id = :business and m.deleted_at is null
          and exists (select from unnest(m.tags) as t where lower(t) = lower(:tag))
        order by m.customer_id
        limit :most
    ), people as (
        update customers c set version = version + 1, updated_at = :now
        from renamed where c.tenant_id = :tenant and c.customer_id = renamed.customer_id
        returning c.customer_id, c.version
    )
    update memberships m set tags = renamed.tags
    from renamed join people using (customer_id)
    where m.tenant_id = :tenant and m.business_id = :business and m.customer_id = renamed.customer_id
    returning m.customer_id, people.version, m.status, m.type
""")


async def rename_tag(tx: Tx, business_id: UUID, tag: str, new_tag: str, most: int) -> int:
    """Renames a tag on up to `most` customers of a business; gives how many it was. Emits CustomerUpdated for each.

    Call it until it gives fewer than `most`, unless the names are the same without regard to case.
    """
    where = {"tenant": tx.tenant_id, "business": business_id, "now": tx.now, "most": most}
    rows = (await tx.execute(_RENAME, {**where, "tag": tag.strip(), "new_tag": new_tag.strip()})).all()
    renamed = [row.customer_id for row in rows]
    await timeline.note_change(tx, renamed, [business_id], timeline.UPDATED, ["tags"])
    for row in rows:
        event = events.CustomerUpdated(
            customer_id=str(row.customer_id),
            business_id=str(business_id),
            changed_fields=["tags"],
            status=row.status,
            type=row.type,
        )
        await emit(tx, event, aggregate_id=row.customer_id, version=row.version, business_id=business_id)
    return len(rows)
