"""The tables of activities."""

from sqlalchemy import BigInteger, Column, DateTime, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.customers.tables import metadata

# Partitioned by month of `occurred_at`. `sealed` holds properties, the whole referrer and the user agent.
activities = Table(
    "activities",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("occurred_at", DateTime(timezone=True), primary_key=True),
    Column("activity_id", UUID, primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    *(
        Column(name, Text)
        for name in (
            "name",
            "session",
            "utm_source",
            "utm_medium",
            "utm_campaign",
            "utm_term",
            "utm_content",
            "referrer",
            "country",
            "sku",
            "product_name",
            "product_category",
            "brand",
            "currency",
        )
    ),
    Column("device", SmallInteger),
    Column("quantity", Integer),
    Column("value_minor", BigInteger),
    Column("key_id", UUID),
    Column("sealed", LargeBinary),
    Column("sealed_ip", LargeBinary),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
)

# What makes an id unique in its business, whatever month it says.
activity_ids = Table(
    "activity_ids",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("activity_id", UUID, primary_key=True),
    Column("occurred_at", DateTime(timezone=True), nullable=False),
)
