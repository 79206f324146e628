"""The tables of bulk overrides."""

from sqlalchemy import Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

# The id is that of the job. Rows stay: the history of the members names them. `tier` is absent where overrides end.
tier_bulks = Table(
    "tier_bulks",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("bulk_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("segment_id", UUID),
    Column("tier", Text),
    Column("override_until", DateTime(timezone=True)),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

# Those of a list, and of a segment those that it could not be done for; `fault` says why. Kept as long as the job.
tier_bulk_members = Table(
    "tier_bulk_members",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("bulk_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("fault", Text),
)
