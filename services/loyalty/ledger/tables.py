"""The tables of the ledger; migration 0002 says what their columns mean and in which order rows are locked."""

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.loyalty.tables import metadata


def _key(*names: str) -> list[Column[object]]:
    return [Column(name, UUID, primary_key=True) for name in ("tenant_id", *names)]


def _ids(*names: str, nullable: bool = False) -> list[Column[object]]:
    return [Column(f"{name}_id", UUID, nullable=nullable) for name in names]


def _points(*names: str) -> list[Column[object]]:
    return [Column(name, BigInteger, nullable=False) for name in names]


def _instants(*names: str, nullable: bool = False) -> list[Column[object]]:
    return [Column(f"{name}_at", DateTime(timezone=True), nullable=nullable) for name in names]


accounts = Table(
    "accounts",
    metadata,
    *_key("account_id"),
    *_ids("business", "program", "customer"),
    *_points("balance", "pending", "held", "debt", "shortfall", "lifetime", "redeemed", "expired"),
    *_points("entries", "version"),
    *_instants("opened"),
    *_instants("active", nullable=True),
    Column("merged_into", UUID),
)

entries = Table(
    "entries",
    metadata,
    *_key("entry_id"),
    *_ids("account", "business"),
    *_points("seq"),
    Column("kind", SmallInteger, nullable=False),
    *_points("points", "balance_points", "pending_points", "opening_balance", "opening_pending", "shortfall"),
    *_instants("booked", "effective"),
    *_ids("order", "reverses", "hold", "counterpart", "key", nullable=True),
    Column("source", Text, nullable=False),
    *_instants("available", "expires", nullable=True),
    Column("reasons", JSONB, nullable=False),
    Column("actor", Text, nullable=False),
    Column("sealed", LargeBinary),
    *_points("lifetime_points"),
    *_instants("counted", nullable=True),
)

lots = Table(
    "lots",
    metadata,
    *_key("lot_id"),
    *_ids("account", "business", "entry"),
    *_points("points", "remaining", "held"),
    Column("pending", Boolean, nullable=False),
    *_instants("earned"),
    *_instants("available", "expires", nullable=True),
    *_ids("order", "origin_lot", nullable=True),
    Column("noticed", Boolean, nullable=False),
    Column("pooled", Boolean, nullable=False),
)

allocations = Table(
    "allocations", metadata, *_key("entry_id", "lot_id"), *_ids("business"), *_points("points")
)

holds = Table(
    "holds",
    metadata,
    *_key("hold_id"),
    *_ids("account", "business"),
    *_points("points", "captured"),
    Column("state", SmallInteger, nullable=False),
    *_instants("created", "expires"),
    *_instants("closed", nullable=True),
    *_ids("order", "entry", nullable=True),
)

hold_lots = Table("hold_lots", metadata, *_key("hold_id", "lot_id"), *_ids("business"), *_points("points"))

orders = Table(
    "orders",
    metadata,
    *_key("order_id"),
    *_ids("business", "customer"),
    *_points("version"),
    Column("cancelled", Boolean, nullable=False),
    *_instants("placed"),
    *_instants("completed", nullable=True),
    Column("local_day", Date, nullable=False),
    *_points("total_minor", "refunded_minor"),
    Column("facts", JSONB, nullable=False),
)

judged_orders = Table(
    "judged_orders",
    metadata,
    *_key("program_id", "order_id"),
    *_ids("business", "account"),
    *_points("version"),
    *_instants("judged"),
    Column("context", JSONB, nullable=False),
    *_points("given", "reclaimed", "shortfall"),
)

awards = Table(
    "awards",
    metadata,
    *_key("program_id"),
    Column("source", Text, primary_key=True),
    Column("rule_id", UUID, primary_key=True),
    *_ids("business", "account"),
    Column("local_day", Date, nullable=False),
    *_points("points"),
)
