"""The tables of reports; migrations 0007 and 0008 say what their columns mean."""

from typing import Any

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


def _folded(name: str, *key: tuple[str, Any], ids: tuple[str, ...], counts: str) -> Table:
    """A table of counts. Statements of text write and read it."""
    return Table(
        name,
        metadata,
        Column("tenant_id", UUID, primary_key=True),
        *(Column(column, kind, primary_key=True) for column, kind in key),
        *(Column(column, UUID, nullable=False) for column in ids),
        *(Column(column, BigInteger, nullable=False) for column in counts.split()),
    )


reward_days = _folded(
    "reward_days",
    ("reward_id", UUID),
    ("day", Date),
    ids=("business_id", "program_id"),
    counts="redeemed used cancelled expired spent returned used_minor",
)
cohort_months = _folded(
    "cohort_months",
    ("program_id", UUID),
    ("joined", Date),
    ("month", Date),
    ids=("business_id",),
    counts="active issued redeemed",
)
revenue_days = _folded(
    "revenue_days", ("business_id", UUID), ("day", Date), ids=(), counts="orders net_minor"
)

report_members = Table(
    "report_members",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("account_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("joined", Date, nullable=False),
    Column("month", Date, nullable=False),
)

revenue_changes = Table(
    "revenue_changes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("change_id", BigInteger, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("day", Date, nullable=False),
    Column("orders", BigInteger, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
)
