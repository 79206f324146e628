"""Reads of what is compared."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from services.customers.activities import queries as activities
from services.customers.addresses import queries as addresses
from services.customers.contacts import rules
from services.customers.contacts.rules import Traces
from services.customers.profiles import queries as profiles
from services.customers.profiles.queries import View

DEVICES_OF_LAST = 50
IPS_ARE_KEPT = timedelta(days=31)

_LATEST = text("""
    select a.*, k.epoch, k.wrapped
    from activities a
    join subject_keys k on k.tenant_id = a.tenant_id and k.key_id = a.key_id
    where a.tenant_id = :tenant and a.business_id = :business and a.customer_id = :customer
      and a.occurred_at >= :since and a.sealed_ip is not null
    order by a.occurred_at desc, a.activity_id desc limit :some
""")


async def view(tx: Tx, keys: TenantKeys, reading: Reading, business_id: UUID, customer_id: UUID) -> View:
    """A customer of the business, deleted or not. Raises CustomerNotFound."""
    return await profiles.one(tx, keys, reading, customer_id, business_id, deleted=True)


async def traces(tx: Tx, keys: TenantKeys, reading: Reading, of: View) -> Traces:
    """What a customer is compared by."""
    places = [each.place for each in await addresses.all_of(tx, keys, reading, of.customer_id)]
    where = {"tenant": tx.tenant_id, "business": of.business_id, "customer": of.customer_id}
    rows = await tx.execute(_LATEST, {**where, "some": DEVICES_OF_LAST, "since": tx.now - IPS_ARE_KEPT})
    seen = [activities.view(row, keys, reading) for row in rows]
    devices = {(each.ip, str(each.sealed.get("user_agent", ""))) for each in seen}
    return rules.traces(of.profile, places, {each for each in devices if all(each)})
