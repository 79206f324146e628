"""Merges of customers: what each moved, so that it can be undone exactly."""

from alembic import op

revision = "0006"
down_revision = "0005"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# A merge holds while it has `merged_at` and no `undone_at`; one whose undoing was heard first has only the latter.
# `survivor_id` is who the target was by then; `step` orders what was applied. An account with `merged_into` is
# written by nobody: its points are in that account.
TABLES = """
create table merges (
    tenant_id uuid not null,
    operation_id uuid not null,
    source_id uuid not null,
    target_id uuid not null,
    survivor_id uuid,
    step uuid,
    moved jsonb not null,
    merged_at timestamptz,
    undone_at timestamptz,
    constraint merges_pkey primary key (tenant_id, operation_id)
);
create unique index merges_source_idx on merges (tenant_id, source_id)
    where merged_at is not null and undone_at is null;
create index merges_survivor_idx on merges (tenant_id, survivor_id);

-- `lacking`: points that the source should have got back and did not, because the survivor had spent them.
create table merged_accounts (
    tenant_id uuid not null,
    operation_id uuid not null,
    source_account_id uuid not null,
    target_account_id uuid not null,
    program_id uuid not null,
    business_id uuid not null,
    moved jsonb not null,
    lacking bigint not null,
    constraint merged_accounts_pkey primary key (tenant_id, operation_id, source_account_id),
    constraint merged_accounts_merge_fkey foreign key (tenant_id, operation_id) references merges,
    constraint merged_accounts_source_fkey foreign key (tenant_id, source_account_id) references accounts,
    constraint merged_accounts_target_fkey foreign key (tenant_id, target_account_id) references accounts,
    constraint merged_accounts_lacking_check check (lacking >= 0)
);
create index merged_accounts_source_idx on merged_accounts (tenant_id, source_account_id);
create index merged_accounts_target_idx on merged_accounts (tenant_id, target_account_id);

alter table accounts add column merged_into uuid;
create index accounts_merged_idx on accounts (tenant_id, merged_into) where merged_into is not null;
create index lots_origin_idx on lots (tenant_id, origin_lot_id) where origin_lot_id is not null;
alter table memberships add column merged_into uuid;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("merges", "merged_accounts"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on merged_accounts as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
