"""Tiers that are set by hand for many members at once."""

from alembic import op

revision = "0012"
down_revision = "0011"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

TABLES = """
create table tier_bulks (
    tenant_id uuid not null,
    bulk_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    segment_id uuid,
    tier text,
    override_until timestamptz,
    reason text not null,
    actor text not null,
    created_at timestamptz not null,
    constraint tier_bulks_pkey primary key (tenant_id, bulk_id),
    constraint tier_bulks_program_fkey foreign key (tenant_id, program_id) references programs
);
create index tier_bulks_program_idx on tier_bulks (tenant_id, program_id);
create index tier_bulks_created_idx on tier_bulks (tenant_id, created_at);

create table tier_bulk_members (
    tenant_id uuid not null,
    bulk_id uuid not null,
    customer_id uuid not null,
    business_id uuid not null,
    fault text,
    constraint tier_bulk_members_pkey primary key (tenant_id, bulk_id, customer_id),
    constraint tier_bulk_members_bulk_fkey foreign key (tenant_id, bulk_id) references tier_bulks
);
create index tier_bulk_members_customer_idx on tier_bulk_members (tenant_id, customer_id);

alter table tier_changes add column bulk_id uuid;
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("tier_bulks", "tier_bulk_members"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
