"""The tables of tiers."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.loyalty.tables import metadata

# The newest version is what holds; all of them are the audit.
tier_configurations = Table(
    "tier_configurations",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("program_id", UUID, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
)

standings = Table(
    "standings",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("account_id", UUID, primary_key=True),
    Column("program_id", UUID, nullable=False),
    Column("business_id", UUID, nullable=False),
    Column("tier", Text, nullable=False),
    Column("since", DateTime(timezone=True)),
    Column("grace_until", DateTime(timezone=True)),
    Column("review_at", DateTime(timezone=True)),
    Column("overridden", Boolean, nullable=False),
    Column("override_until", DateTime(timezone=True)),
    Column("version", BigInteger, nullable=False),
)

tier_changes = Table(
    "tier_changes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("change_id", UUID, primary_key=True),
    Column("account_id", UUID, nullable=False),
    Column("business_id", UUID, nullable=False),
    Column("from_tier", Text, nullable=False),
    Column("to_tier", Text, nullable=False),
    Column("why", SmallInteger, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("key_id", UUID),
    Column("sealed", LargeBinary),
    Column("bulk_id", UUID),
)
