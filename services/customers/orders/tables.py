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
    return [Column(f"{name}_minor", BigInteger) for name in names]


def _instants(*names: str) -> list[Column[object]]:
    return [Column(f"{name}_at", DateTime(timezone=True)) for name in names]


orders = Table(
    "orders",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("order_id", UUID, primary_key=True),
    Column("business_id", UUID),
    Column("customer_id", UUID),
    Column("source", Text),
    Column("external_id", Text),
    Column("revision", BigInteger),
    Column("content", LargeBinary),
    Column("version", BigInteger),
    Column("status", SmallInteger),
    *_instants("placed", "completed", "fulfilled", "delivered"),
    Column("local_day", Date),
    Column("channel", Text),
    Column("store", Text),
    Column("items", JSONB),
    Column("quantity", BigInteger),
    Column("tax_included", Boolean),
    *_minor("subtotal", "discount", "shipping", "tax", "total", "refunded", "refund_notice"),
    Column("tags", ARRAY(Text)),
    Column("payments", JSONB),
    Column("deliveries", JSONB),
    Column("key_id", UUID),
    Column("sealed", LargeBinary),
    *_instants("created", "updated"),
)

customer_metrics = Table(
    "customer_metrics",
    metadata,
    *_key("customer_id"),
    Column("orders_recorded", Integer),
    Column("orders_completed", Integer),
    Column("orders_cancelled", Integer),
    Column("orders_refunded", Integer),
    *_minor("total_spent", "refunded", "net", "average_order"),
    *_instants("first_order", "last_order"),
    Column("items", BigInteger),
    Column("visits", Integer),
    Column("favourite_category", Text),
    Column("favourite_brand", Text),
    Column("lifecycle_stage", SmallInteger),
    *_instants("updated"),
)

customer_daily = Table(
    "customer_daily",
    metadata,
    *_key("customer_id"),
    Column("day", Date, primary_key=True),
    Column("orders", Integer),
    *_minor("spent"),
)

customer_favourites = Table(
    "customer_favourites",
    metadata,
    *_key("customer_id"),
    Column("kind", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("quantity", BigInteger),
    *_minor("spent"),
)
