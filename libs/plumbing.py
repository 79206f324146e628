"""The tables that every service's schema has beside its own: events in and out, jobs, timers, tenants, files.

`libs/migrations` makes them; the names of their constraints are part of the error contract.
"""

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

# Owner of rows that belong to no tenant: platform-wide jobs and timers, unreadable events.
NO_TENANT = UUID(int=0)

metadata = MetaData()


def _instant(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _tenant() -> Column[UUID]:
    return Column("tenant_id", Uuid, nullable=False)


outbox = Table(
    "outbox",
    metadata,
    _tenant(),
    Column("id", Uuid, nullable=False),
    Column("subject", Text, nullable=False),  # without prefix and tenant
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    _instant("created_at"),
    Column("lane", SmallInteger, nullable=False, server_default=text("0")),  # see libs/outbox
    PrimaryKeyConstraint("tenant_id", "id", name="outbox_pkey"),
    Index("outbox_lane_id_idx", "lane", "id"),
)

inbox = Table(
    "inbox",
    metadata,
    _tenant(),
    Column("consumer", Text, nullable=False),
    Column("event_id", Uuid, nullable=False),
    _instant("received_at"),
    PrimaryKeyConstraint("tenant_id", "consumer", "event_id", name="inbox_pkey"),
    Index("inbox_received_at_idx", "received_at"),
)

parked = Table(
    "parked",
    metadata,
    _tenant(),
    Column("consumer", Text, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("waits_for", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    _instant("parked_at"),
    _instant("due_at"),
    PrimaryKeyConstraint("tenant_id", "consumer", "event_id", name="parked_pkey"),
    Index("parked_waits_for_idx", "tenant_id", "waits_for"),
    Index("parked_due_at_idx", "due_at"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _tenant(),
    Column("consumer", Text, nullable=False),
    Column("event_id", Uuid, nullable=False),
    Column("subject", Text, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error_reason", Text, nullable=False),  # a Problem's reason, or the exception's class
    Column("error_detail", Text, nullable=False),
    _instant("failed_at"),
    PrimaryKeyConstraint("tenant_id", "consumer", "event_id", name="dead_letters_pkey"),
    Index("dead_letters_failed_at_idx", "failed_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _tenant(),
    Column("principal", LargeBinary, nullable=False),  # keyed hash of kind and subject
    Column("method", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("request_hash", LargeBinary, nullable=False),
    Column("resource_id", Uuid, nullable=False),
    Column("claim_id", Uuid, nullable=False),  # tells the call that made the row from those that met it
    _instant("created_at"),
    PrimaryKeyConstraint("tenant_id", "principal", "method", "request_id", name="idempotency_keys_pkey"),
    Index("idempotency_keys_created_at_idx", "created_at"),
)

jobs = Table(
    "jobs",
    metadata,
    _tenant(),
    Column("id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("business_id", Uuid),
    Column("input", JSONB, nullable=False),
    Column("checkpoint", JSONB, nullable=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger),
    Column("attempts", Integer, nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("error_reason", Text),
    Column("error_detail", Text),
    Column("created_by", Text, nullable=False),
    _instant("created_at"),
    _instant("due_at"),
    _instant("started_at", nullable=True),
    _instant("finished_at", nullable=True),
    _instant("cancel_requested_at", nullable=True),
    Column("lease_token", Uuid),
    _instant("lease_until", nullable=True),
    PrimaryKeyConstraint("tenant_id", "id", name="jobs_pkey"),
    CheckConstraint(
        "state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="jobs_state_check"
    ),
    CheckConstraint("done >= 0", name="jobs_done_check"),
    Index(
        "jobs_open_due_at_idx",
        "due_at",
        postgresql_where=text("state in ('queued', 'running')"),
    ),
    Index(
        "jobs_finished_at_idx",
        "finished_at",
        postgresql_where=text("finished_at is not null"),
    ),
)

timers = Table(
    "timers",
    metadata,
    _tenant(),
    Column("name", Text, nullable=False),
    _instant("due_at"),
    _instant("ran_at", nullable=True),
    Column("failures", Integer, nullable=False),
    PrimaryKeyConstraint("tenant_id", "name", name="timers_pkey"),
)

# No tenant: one row for each loop of which only one may be active per service.
leases = Table(
    "leases",
    metadata,
    Column("name", Text, nullable=False),
    Column("holder", Uuid, nullable=False),
    _instant("held_until"),
    PrimaryKeyConstraint("name", name="leases_pkey"),
)

tenants = Table(
    "tenants",
    metadata,
    _tenant(),
    Column("slug", Text, nullable=False),
    _instant("closed_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", name="tenants_pkey"),
)

# Files in the object storage, each sealed under a key of its own (libs/sealed_files).
files = Table(
    "files",
    metadata,
    _tenant(),
    Column("file_id", Uuid, nullable=False),
    Column("key_id", Uuid, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("size", BigInteger, nullable=False),  # of the content, in bytes
    Column("digest", LargeBinary, nullable=False),  # keyed hash of the content
    _instant("created_at"),
    _instant("expires_at"),
    _instant("destroyed_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", "file_id", name="files_pkey"),
    CheckConstraint("size >= 0", name="files_size_check"),
    Index(
        "files_digest_idx", "tenant_id", "purpose", "digest", postgresql_where=text("destroyed_at is null")
    ),
    Index("files_expires_at_idx", "expires_at", postgresql_where=text("destroyed_at is null")),
)
