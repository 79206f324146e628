"""The tables of what only the timeline keeps."""

from sqlalchemy import Column, DateTime, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

from services.customers.tables import metadata

# What changed about a customer: names of fields, never values. `kind` is a number of CustomerChangeKind.
customer_changes = Table(
    "customer_changes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("changed_at", DateTime(timezone=True), primary_key=True),
    Column("change_id", UUID, primary_key=True),
    Column("kind", SmallInteger, nullable=False),
    Column("fields", ARRAY(Text), nullable=False),
    Column("actor", Text, nullable=False),
)

# What events told of a customer.
customer_reports = Table(
    "customer_reports",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("reported_at", DateTime(timezone=True), primary_key=True),
    Column("event_id", UUID, primary_key=True),
    Column("event", Text, nullable=False),
    Column("facts", JSONB, nullable=False),
)
