"""The tables of merges; migration 0006 says what their columns mean."""

from sqlalchemy import BigInteger, Column, DateTime, Table
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.loyalty.tables import metadata

merges = Table(
    "merges",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("operation_id", UUID, primary_key=True),
    Column("source_id", UUID, nullable=False),
    Column("target_id", UUID, nullable=False),
    Column("survivor_id", UUID),
    Column("step", UUID),
    Column("moved", JSONB, nullable=False),
    Column("merged_at", DateTime(timezone=True)),
    Column("undone_at", DateTime(timezone=True)),
)

merged_accounts = Table(
    "merged_accounts",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("operation_id", UUID, primary_key=True),
    Column("source_account_id", UUID, primary_key=True),
    Column("target_account_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("business_id", UUID, nullable=False),
    Column("moved", JSONB, nullable=False),
    Column("lacking", BigInteger, nullable=False),
)
