"""What becomes of households when customers go."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, text

from libs.db import Tx
from services.loyalty.households import actions, queries, rules

_GONE = text("""
    select h.household_id, h.customer_id from household_members h
    join memberships m on m.tenant_id = :tenant and m.business_id = h.business_id and m.customer_id = h.customer_id
    where h.tenant_id = :tenant and h.customer_id = any(:customers) and (m.deleted or not m.present)
    order by h.household_id, h.joined_at, h.customer_id
""").bindparams(bindparam("customers", type_=ARRAY(Uuid)))


async def leave_gone(tx: Tx, customer_ids: Collection[UUID]) -> None:
    """Takes those of these customers out who are deleted or no members of the business any more.

    Emits HouseholdLeft, HouseholdClosed.
    """
    rows = (await tx.execute(_GONE, {"tenant": tx.tenant_id, "customers": list(customer_ids)})).all()
    await queries.lock(tx, {row.household_id for row in rows})
    for row in rows:
        household = await queries.household(tx, row.household_id)
        await actions.leave_household(tx, household, row.customer_id, rules.GONE)
