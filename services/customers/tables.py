"""The tables of the customers service; constraint names are part of the error contract."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData()


def _instant(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


accounts = Table(
    "accounts",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("slug", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    _instant("created_at"),
)

businesses = Table(
    "businesses",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("country", Text, nullable=False),
    Column("order_completion", SmallInteger, nullable=False),
    Column("erasure_cool_off_days", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("archived_at", nullable=True),
    Column("keep_visitor_details", Boolean, nullable=False),
)

attribute_definitions = Table(
    "attribute_definitions",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("type", SmallInteger, nullable=False),
    Column("label", Text, nullable=False),
    Column("choices", ARRAY(Text), nullable=False),
    Column("not_personal", Boolean, nullable=False),
    _instant("created_at"),
    _instant("archived_at", nullable=True),
)

customers = Table(
    "customers",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("key_id", UUID, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("profile", LargeBinary, nullable=False),
    Column("email_verified", Boolean, nullable=False),
    Column("phone_verified", Boolean, nullable=False),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("deleted_at", nullable=True),
    _instant("erasing_at", nullable=True),
    Column("merged_into", UUID),
)

customer_identifiers = Table(
    "customer_identifiers",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key_version", Integer, primary_key=True),
    Column("bidx", LargeBinary, primary_key=True),
    Column("customer_id", UUID, nullable=False),
)

memberships = Table(
    "memberships",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("status", SmallInteger, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("attributes", JSONB, nullable=False),
    Column("sealed", LargeBinary),
    Column("source", Text, nullable=False),
    _instant("joined_at"),
    _instant("last_active_at", nullable=True),
    _instant("deleted_at", nullable=True),
    Column("deletion_mode", SmallInteger),
    _instant("erase_due_at", nullable=True),
)

addresses = Table(
    "addresses",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("address_id", UUID, primary_key=True),
    Column("key_id", UUID, nullable=False),
    Column("type", SmallInteger, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _instant("created_at"),
    _instant("updated_at"),
    Column("verification", SmallInteger, nullable=False),
    _instant("verification_at"),
    Column("verification_sealed", LargeBinary),
)

notes = Table(
    "notes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("note_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    _instant("created_at"),
    _instant("updated_at"),
)

note_revisions = Table(
    "note_revisions",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("note_id", UUID, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("key_id", UUID, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _instant("written_at"),
)
