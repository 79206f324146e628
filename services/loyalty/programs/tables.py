"""The tables of programs and earning rules."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.loyalty.tables import metadata

# `settings` and `definition` are the messages' JSON form with the names of the proto, output fields left out.
programs = Table(
    "programs",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("program_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("name", Text, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("settings", JSONB, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

# Every version of every rule; what holds now has no `holds_until`.
earning_rules = Table(
    "earning_rules",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("rule_id", UUID, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("holds_from", DateTime(timezone=True), nullable=False),
    Column("holds_until", DateTime(timezone=True)),
)
