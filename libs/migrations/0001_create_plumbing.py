"""Create the plumbing: outbox, inbox, parked, dead letters, idempotency keys, jobs, timers, leases, tenants.

Run in every service's schema; the settings `regulars.app_role` and `regulars.worker_role` name its roles.
"""

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OF_TENANTS = (
    "outbox",
    "inbox",
    "parked",
    "dead_letters",
    "idempotency_keys",
    "jobs",
    "timers",
    "tenants",
)
OF_ALL = ("leases",)

# A caller with some businesses sees their jobs; one with all sees those of the whole tenant as well.
OWN_BUSINESS = (
    "(select current_setting('app.businesses', true)) = '*' or business_id = any ("
    "(select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[])"
)

TABLES = """
create table outbox (
    tenant_id uuid not null,
    id uuid not null,
    subject text not null,
    headers jsonb not null,
    body bytea not null,
    created_at timestamptz not null,
    constraint outbox_pkey primary key (tenant_id, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
create index outbox_id_idx on outbox (id);

create table inbox (
    tenant_id uuid not null,
    consumer text not null,
    event_id uuid not null,
    received_at timestamptz not null,
    constraint inbox_pkey primary key (tenant_id, consumer, event_id)
);
create index inbox_received_at_idx on inbox (received_at);

create table parked (
    tenant_id uuid not null,
    consumer text not null,
    event_id uuid not null,
    waits_for text not null,
    subject text not null,
    headers jsonb not null,
    body bytea not null,
    attempts integer not null,
    parked_at timestamptz not null,
    due_at timestamptz not null,
    constraint parked_pkey primary key (tenant_id, consumer, event_id)
);
create index parked_waits_for_idx on parked (tenant_id, waits_for);
create index parked_due_at_idx on parked (due_at);

create table dead_letters (
    tenant_id uuid not null,
    consumer text not null,
    event_id uuid not null,
    subject text not null,
    headers jsonb not null,
    body bytea not null,
    attempts integer not null,
    error_reason text not null,
    error_detail text not null,
    failed_at timestamptz not null,
    constraint dead_letters_pkey primary key (tenant_id, consumer, event_id)
);
create index dead_letters_failed_at_idx on dead_letters (failed_at);

create table idempotency_keys (
    tenant_id uuid not null,
    principal bytea not null,
    method text not null,
    request_id text not null,
    request_hash bytea not null,
    resource_id uuid not null,
    claim_id uuid not null,
    created_at timestamptz not null,
    constraint idempotency_keys_pkey primary key (tenant_id, principal, method, request_id)
);
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);

create table jobs (
    tenant_id uuid not null,
    id uuid not null,
    kind text not null,
    state text not null,
    business_id uuid,
    input jsonb not null,
    checkpoint jsonb not null,
    done bigint not null,
    total bigint,
    attempts integer not null,
    max_attempts integer not null,
    error_reason text,
    error_detail text,
    created_by text not null,
    created_at timestamptz not null,
    due_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    cancel_requested_at timestamptz,
    lease_token uuid,
    lease_until timestamptz,
    constraint jobs_pkey primary key (tenant_id, id),
    constraint jobs_state_check check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    constraint jobs_done_check check (done >= 0)
);
create index jobs_open_due_at_idx on jobs (due_at) where state in ('queued', 'running');
create index jobs_finished_at_idx on jobs (finished_at) where finished_at is not null;

create table timers (
    tenant_id uuid not null,
    name text not null,
    due_at timestamptz not null,
    ran_at timestamptz,
    failures integer not null,
    constraint timers_pkey primary key (tenant_id, name)
);

create table leases (
    name text not null,
    holder uuid not null,
    held_until timestamptz not null,
    constraint leases_pkey primary key (name)
);

create table tenants (
    tenant_id uuid not null,
    slug text not null,
    closed_at timestamptz,
    constraint tenants_pkey primary key (tenant_id)
);
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute("set local statement_timeout = '60s'")
    roles = [f"quote_ident(current_setting('regulars.{role}_role'))" for role in ("app", "worker")]
    app, worker = op.get_bind().execute(text(f"select {', '.join(roles)}")).one()
    for statement in TABLES.split(";"):
        if statement.strip():
            op.execute(statement)
    for table in (*OF_TENANTS, *OF_ALL):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"grant select, insert, update, delete on {table} to {worker}")
        op.execute(f"create policy worker on {table} to {worker} using (true) with check (true)")
    mine = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
    for table in OF_TENANTS:
        op.execute(f"grant select, insert, update, delete on {table} to {app}")
        op.execute(f"create policy tenant on {table} to {app} using ({mine}) with check ({mine})")
    op.execute(
        f"create policy business on jobs as restrictive to {app}"
        f" using ({OWN_BUSINESS}) with check ({OWN_BUSINESS})"
    )
    for table in OF_ALL:
        op.execute(f"revoke all on {table} from {app}")


def downgrade() -> None:
    for table in (*OF_TENANTS, *OF_ALL):
        op.execute(f"drop table {table}")
