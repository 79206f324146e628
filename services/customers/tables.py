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


def _instant(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


accounts = Table(
    "accounts",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("slug", Text),
    Column("display_name", Text),
    _instant("created_at"),
)

businesses = Table(
    "businesses",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("name", Text),
    Column("currency", Text),
    Column("time_zone", Text),
    Column("language", Text),
    Column("country", Text),
    Column("order_completion", SmallInteger),
    Column("erasure_cool_off_days", SmallInteger),
    Column("version", BigInteger),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("archived_at"),
    Column("keep_visitor_details", Boolean),
)

attribute_definitions = Table(
    "attribute_definitions",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("type", SmallInteger),
    Column("label", Text),
    Column("choices", ARRAY(Text)),
    Column("not_personal", Boolean),
    _instant("created_at"),
    _instant("archived_at"),
)

customers = Table(
    "customers",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("key_id", UUID),
    Column("version", BigInteger),
    Column("profile", LargeBinary),
    Column("email_verified", Boolean),
    Column("phone_verified", Boolean),
    _instant("created_at"),
    _instant("updated_at"),
    _instant("deleted_at"),
    _instant("erasing_at"),
    Column("merged_into", UUID),
)

customer_identifiers = Table(
    "customer_identifiers",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("key_version", Integer, primary_key=True),
    Column("bidx", LargeBinary, primary_key=True),
    Column("customer_id", UUID),
)

memberships = Table(
    "memberships",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("status", SmallInteger),
    Column("type", SmallInteger),
    Column("tags", ARRAY(Text)),
    Column("attributes", JSONB),
    Column("sealed", LargeBinary),
    Column("source", Text),
    _instant("joined_at"),
    _instant("last_active_at"),
    _instant("deleted_at"),
    Column("deletion_mode", SmallInteger),
    _instant("erase_due_at"),
)

addresses = Table(
    "addresses",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("address_id", UUID, primary_key=True),
    Column("key_id", UUID),
    Column("type", SmallInteger),
    Column("is_default", Boolean),
    Column("sealed", LargeBinary),
    _instant("created_at"),
    _instant("updated_at"),
    Column("verification", SmallInteger),
    _instant("verification_at"),
    Column("verification_sealed", LargeBinary),
)

notes = Table(
    "notes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("note_id", UUID, primary_key=True),
    Column("business_id", UUID),
    Column("kind", SmallInteger),
    Column("revision", Integer),
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
    Column("key_id", UUID),
    Column("sealed", LargeBinary),
    _instant("written_at"),
)
