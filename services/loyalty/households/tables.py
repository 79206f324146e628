"""The tables of households; migration 0015 says what their columns mean."""

from sqlalchemy import BigInteger, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

households = Table(
    "households",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("household_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    Column("version", BigInteger, nullable=False),
)

household_members = Table(
    "household_members",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("household_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("joined_at", DateTime(timezone=True), nullable=False),
    Column("added_by", Text, nullable=False),
    Column("key_id", UUID),
    Column("sealed", LargeBinary),
)

household_invitations = Table(
    "household_invitations",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("invitation_id", UUID, primary_key=True),
    Column("household_id", UUID, nullable=False),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("code", Text, nullable=False),
    Column("invited_by", UUID, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
)
