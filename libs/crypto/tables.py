"""The two tables of every service that has keys; migration 0002_create_keys makes them."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)

metadata = MetaData()

# Data keys of people, each wrapped by the tenant key of `epoch`. A destroyed one leaves its row without key.
subject_keys = Table(
    "subject_keys",
    metadata,
    Column("tenant_id", Uuid, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("subject_id", Uuid, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("wrapped", LargeBinary),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("destroyed_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "key_id", name="subject_keys_pkey"),
    CheckConstraint("(wrapped is null) = (destroyed_at is not null)", name="subject_keys_destroyed_check"),
    Index("subject_keys_subject_id_idx", "tenant_id", "subject_id"),
)

# Which version of each kind of tenant key is in use; the keys themselves are in the keystore.
key_versions = Table(
    "key_versions",
    metadata,
    Column("tenant_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("state_at", DateTime(timezone=True), nullable=False),
    PrimaryKeyConstraint("tenant_id", "kind", "version", name="key_versions_pkey"),
    CheckConstraint("state in ('adding', 'current', 'retiring')", name="key_versions_state_check"),
    Index(
        "key_versions_current_idx",
        "tenant_id",
        "kind",
        unique=True,
        postgresql_where=text("state = 'current'"),
    ),
)
