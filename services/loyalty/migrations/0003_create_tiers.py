"""Tiers of programs, where members stand, and the tiers that they had."""

from alembic import op

revision = "0003"
down_revision = "0002"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# A standing is written under the lock of its account. A member without one is in the lowest tier.
TABLES = """
create table tier_configurations (
    tenant_id uuid not null,
    program_id uuid not null,
    version bigint not null,
    business_id uuid not null,
    definition jsonb not null,
    reason text not null,
    actor text not null,
    changed_at timestamptz not null,
    constraint tier_configurations_pkey primary key (tenant_id, program_id, version),
    constraint tier_configurations_program_fkey foreign key (tenant_id, program_id) references programs
);

create table standings (
    tenant_id uuid not null,
    account_id uuid not null,
    program_id uuid not null,
    business_id uuid not null,
    tier text not null,
    since timestamptz,
    grace_until timestamptz,
    review_at timestamptz,
    overridden boolean not null,
    override_until timestamptz,
    version bigint not null,
    constraint standings_pkey primary key (tenant_id, account_id),
    constraint standings_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint standings_override_check check (overridden or override_until is null)
);
create index standings_program_idx on standings (tenant_id, program_id, tier);
create index standings_review_idx on standings (tenant_id, review_at) where review_at is not null;
create index standings_override_idx on standings (tenant_id, override_until) where override_until is not null;

create table tier_changes (
    tenant_id uuid not null,
    change_id uuid not null,
    account_id uuid not null,
    business_id uuid not null,
    from_tier text not null,
    to_tier text not null,
    why smallint not null,
    changed_at timestamptz not null,
    actor text not null,
    key_id uuid,
    sealed bytea,
    constraint tier_changes_pkey primary key (tenant_id, change_id),
    constraint tier_changes_account_fkey foreign key (tenant_id, account_id) references accounts
);
create index tier_changes_account_idx on tier_changes (tenant_id, account_id, change_id desc);
create index entries_effective_idx on entries (tenant_id, account_id, effective_at)
    where kind = 1 or (kind = 5 and reverses_id is null);
"""

WALLED = ("tier_configurations", "standings", "tier_changes")


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
