"""The tables of orders and of what is counted of them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from services.customers.tables import metadata


def _key(*names: str) -> list[Column[object]]:
    return [Column(name, UUID, primary_key=True) for name in ("tenant_id", "business_id", *names)]


def _minor(*names: str) -> list[Column[object]]:
    return [Column(f"{name}_minor", BigInteger, nullable=False) for name in names]


def _instants(*names: str, nullable: bool = False) -> list[Column[object]]:
    return [Column(f"{name}_at", DateTime(timezone=True), nullable=nullable) for name in names]


orders = Table(
    "orders",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("order_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("customer_id", UUID),
    Column("source", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", SmallInteger, nullable=False),
    *_instants("placed"),
    *_instants("completed", "fulfilled", "delivered", nullable=True),
    Column("local_day", Date, nullable=False),
    Column("channel", Text, nullable=False),
    Column("store", Text, nullable=False),
    Column("items", JSONB, nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("tax_included", Boolean, nullable=False),
    *_minor("subtotal", "discount", "shipping", "tax", "total", "refunded", "refund_notice"),
    Column("tags", ARRAY(Text), nullable=False),
    Column("payments", JSONB, nullable=False),
    Column("deliveries", JSONB, nullable=False),
    Column("key_id", UUID),
    Column("sealed", LargeBinary),
    *_instants("created", "updated"),
)

customer_metrics = Table(
    "customer_metrics",
    metadata,
    *_key("customer_id"),
    Column("orders_recorded", Integer, nullable=False),
    Column("orders_completed", Integer, nullable=False),
    Column("orders_cancelled", Integer, nullable=False),
    Column("orders_refunded", Integer, nullable=False),
    *_minor("total_spent", "refunded", "net", "average_order"),
    *_instants("first_order", "last_order", nullable=True),
    Column("items", BigInteger, nullable=False),
    Column("visits", Integer, nullable=False),
    Column("favourite_category", Text),
    Column("favourite_brand", Text),
    Column("lifecycle_stage", SmallInteger, nullable=False),
    *_instants("updated"),
)

customer_daily = Table(
    "customer_daily",
    metadata,
    *_key("customer_id"),
    Column("day", Date, primary_key=True),
    Column("orders", Integer, nullable=False),
    *_minor("spent"),
)

customer_favourites = Table(
    "customer_favourites",
    metadata,
    *_key("customer_id"),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("quantity", BigInteger, nullable=False),
    *_minor("spent"),
)
