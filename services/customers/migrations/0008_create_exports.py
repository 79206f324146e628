"""Exports of customers: who took what, and the pieces of the files."""

from alembic import op

revision = "0008"
down_revision = "0007"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# A row stays after its file is destroyed: the list of exports is the record of who took what.
# Pieces are reached through their export alone, whose business is walled.
TABLES = """
create table exports (
    tenant_id uuid not null,
    export_id uuid not null,
    business_id uuid not null,
    streamed boolean not null,
    format smallint not null,
    columns text[] not null,
    masks text[] not null,
    masked_columns text[] not null,
    key_id uuid not null,
    sealed bytea not null,
    filter_digest bytea not null,
    outcome smallint,
    customers bigint not null,
    customers_total bigint,
    size bigint not null,
    created_by text not null,
    created_at timestamptz not null,
    finished_at timestamptz,
    expires_at timestamptz,
    downloads integer not null,
    last_downloaded_at timestamptz,
    constraint exports_pkey primary key (tenant_id, export_id),
    constraint exports_outcome_check check ((outcome is null) = (finished_at is null)),
    constraint exports_business_fkey foreign key (tenant_id, business_id) references businesses
);
create index exports_business_idx on exports (tenant_id, business_id, export_id desc);

create table export_files (
    tenant_id uuid not null,
    export_id uuid not null,
    piece integer not null,
    file_id uuid not null,
    size bigint not null,
    constraint export_files_pkey primary key (tenant_id, export_id, piece),
    constraint export_files_export_fkey foreign key (tenant_id, export_id) references exports on delete cascade
);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("exports", "export_files"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on exports as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
