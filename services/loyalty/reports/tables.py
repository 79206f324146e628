"""The tables of reports; migrations 0007 and 0008 say what their columns mean."""

from sqlalchemy import BigInteger, Column, Date, DateTime, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

report_days = Table(
    "report_days",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("program_id", UUID, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("tier", Text, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("redeemed", BigInteger, nullable=False),
    Column("expired", BigInteger, nullable=False),
    Column("reclaimed", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False),
    Column("change", BigInteger, nullable=False),
)

report_marks = Table(
    "report_marks",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("folded_until", DateTime(timezone=True), nullable=False),
)

fold_marks = Table(
    "fold_marks",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("folded_until", DateTime(timezone=True), nullable=False),
)
