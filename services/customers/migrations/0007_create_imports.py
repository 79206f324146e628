"""Imports of files: what they read, what they wrote row by row, and what they refused."""

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Rows and errors are reached through their import alone, whose business is walled. They have no foreign key to it: a
# million rows would each pay for one, and imports are never deleted.
TABLES = """
create table imports (
    tenant_id uuid not null,
    import_id uuid not null,
    business_id uuid not null,
    kind smallint not null,
    state smallint not null,
    source text not null,
    key_id uuid not null,
    sealed bytea not null,
    file_id uuid not null,
    file_size bigint not null,
    file_digest bytea not null,
    file_expires_at timestamptz,
    duplicates smallint not null,
    match_by smallint not null,
    dry_run boolean not null,
    version bigint not null,
    job_id uuid,
    rows_total bigint,
    rows_done bigint not null,
    last_row bigint not null,
    customers_created bigint not null,
    customers_updated bigint not null,
    customers_skipped bigint not null,
    orders_created bigint not null,
    orders_updated bigint not null,
    orders_skipped bigint not null,
    rows_refused bigint not null,
    conflicts bigint not null,
    try_began_at timestamptz,
    try_began_rows bigint not null,
    created_by text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    undo_until timestamptz,
    constraint imports_pkey primary key (tenant_id, import_id),
    constraint imports_state_check check (state between 1 and 9),
    constraint imports_business_fkey foreign key (tenant_id, business_id) references businesses
);
create index imports_business_idx on imports (tenant_id, business_id, import_id desc);
create index imports_file_digest_idx on imports (tenant_id, business_id, file_digest);

create table import_mappings (
    tenant_id uuid not null,
    business_id uuid not null,
    source text not null,
    kind smallint not null,
    columns_digest bytea not null,
    layout jsonb not null,
    mapping jsonb not null,
    duplicates smallint not null,
    match_by smallint not null,
    updated_at timestamptz not null,
    constraint import_mappings_pkey primary key (tenant_id, business_id, source, kind, columns_digest),
    constraint import_mappings_business_fkey foreign key (tenant_id, business_id) references businesses
);

create table import_rows (
    tenant_id uuid not null,
    import_id uuid not null,
    row bigint not null,
    customer_id uuid,
    customer_outcome smallint not null,
    customer_version bigint not null,
    customer_before bytea,
    order_id uuid,
    order_outcome smallint not null,
    order_version bigint not null,
    order_before bytea,
    constraint import_rows_pkey primary key (tenant_id, import_id, row)
);
create index import_rows_customer_idx on import_rows (tenant_id, import_id, customer_id)
    where customer_id is not null;

create table import_errors (
    tenant_id uuid not null,
    import_id uuid not null,
    row bigint not null,
    place smallint not null,
    column_index integer not null,
    field text not null,
    reason text not null,
    expected text not null,
    customer_id uuid,
    order_id uuid,
    constraint import_errors_pkey primary key (tenant_id, import_id, row, place)
);
"""

# A table that grows tenfold in a minute has statistics of another table, and plans that were right become wrong by as
# much, for everybody. The function is the owner's, because the application may not analyse.
STATISTICS = """
create function refresh_statistics(name text) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    if name <> all (array['customers', 'customer_identifiers', 'memberships', 'orders', 'customer_metrics',
                          'customer_daily', 'customer_favourites', 'import_rows']) then
        raise exception 'no such table';
    end if;
    execute format('analyze %I.%I', {schema}, name);
end
$$
"""

BY_BUSINESS = ["imports", "import_mappings"]
WALLED = [*BY_BUSINESS, "import_rows", "import_errors"]


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    for table in BY_BUSINESS:
        op.execute(
            f"create policy business_wall on {table} as restrictive"
            f" using ({BUSINESS}) with check ({BUSINESS})"
        )
    schema, app = (
        op.get_bind()
        .execute(
            text("select quote_literal(current_schema()), quote_ident(current_setting('regulars.app_role'))")
        )
        .one()
    )
    op.execute(STATISTICS.format(schema=schema))
    op.execute("revoke all on function refresh_statistics(text) from public")
    op.execute(f"grant execute on function refresh_statistics(text) to {app}")
