"""The table of segments' members."""

from sqlalchemy import BigInteger, Boolean, Column, Table
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

# Rows name customers as the events did: who was merged into whom is looked up when they are read, so a merge and its
# undoing move nothing here.
segment_members = Table(
    "segment_members",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("segment_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("inside", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
)
