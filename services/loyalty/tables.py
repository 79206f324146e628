"""The tables of the loyalty service: memberships and businesses, as they were heard of."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, MetaData, Table, Text
from sqlalchemy.dialects.postgresql import UUID

metadata = MetaData()

# Built from events that come in any order. `standing_version` is the customer's version at which `blocked` and
# `guest` were told last, `presence_version` that of `present`; `joined_at` is absent until the joining itself has
# arrived.
memberships = Table(
    "memberships",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("joined_at", DateTime(timezone=True)),
    Column("blocked", Boolean, nullable=False),
    Column("standing_version", BigInteger, nullable=False),
    Column("present", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("presence_version", BigInteger, nullable=False),
    Column("guest", Boolean, nullable=False),
    Column("merged_into", UUID),
)

businesses = Table(
    "businesses",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
)
