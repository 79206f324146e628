"""The table of saved views."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.customers.tables import metadata

# `owner` is the subject of a token; name and search are in `sealed`, under a key of the view's own.
saved_views = Table(
    "saved_views",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("view_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("owner", Text, nullable=False),
    Column("shared", Boolean, nullable=False),
    Column("key_id", UUID, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
