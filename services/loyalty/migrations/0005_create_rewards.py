"""Rewards, pools of codes, and redemptions."""

from alembic import op

revision = "0005"
down_revision = "0004"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Locks are taken in this order: the redemption, the reward, the account, a code of the pool. A reward without stock is
# locked for share: its redeemers do not wait for each other. `taken` counts redemptions that were not cancelled, and is
# kept only where there is a stock. A code is found by its fingerprint; its text is sealed, in a pool under the pool's
# key, and from then on under that of the member who got it.
TABLES = """
create table code_pools (
    tenant_id uuid not null,
    pool_id uuid not null,
    business_id uuid not null,
    name text not null,
    created_at timestamptz not null,
    constraint code_pools_pkey primary key (tenant_id, pool_id)
);
create index code_pools_business_idx on code_pools (tenant_id, business_id, pool_id desc);

create table rewards (
    tenant_id uuid not null,
    reward_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    definition jsonb not null,
    kind smallint not null,
    active boolean not null,
    cost_points bigint not null,
    stock bigint,
    taken bigint not null,
    pool_id uuid,
    valid_from timestamptz,
    valid_until timestamptz,
    published_at timestamptz,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    constraint rewards_pkey primary key (tenant_id, reward_id),
    constraint rewards_program_fkey foreign key (tenant_id, program_id) references programs,
    constraint rewards_pool_fkey foreign key (tenant_id, pool_id) references code_pools,
    constraint rewards_cost_check check (cost_points > 0),
    constraint rewards_stock_check check (taken >= 0 and (stock is null or taken <= stock))
);
create index rewards_program_idx on rewards (tenant_id, program_id, reward_id desc);
create index rewards_pool_idx on rewards (tenant_id, pool_id);
create index rewards_unpublished_idx on rewards (tenant_id, valid_from)
    where published_at is null and active and deleted_at is null;

create table redemptions (
    tenant_id uuid not null,
    redemption_id uuid not null,
    business_id uuid not null,
    account_id uuid not null,
    reward_id uuid not null,
    state smallint not null,
    terms jsonb not null,
    points bigint not null,
    entry_id uuid not null,
    code_hash bytea not null,
    key_id uuid not null,
    sealed bytea not null,
    issued_at timestamptz not null,
    issued_by text not null,
    expires_at timestamptz,
    closed_at timestamptz,
    closed_by text not null,
    place text not null,
    order_id uuid,
    version bigint not null,
    constraint redemptions_pkey primary key (tenant_id, redemption_id),
    constraint redemptions_code_key unique (tenant_id, business_id, code_hash),
    constraint redemptions_entry_key unique (tenant_id, entry_id),
    constraint redemptions_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint redemptions_reward_fkey foreign key (tenant_id, reward_id) references rewards,
    constraint redemptions_entry_fkey foreign key (tenant_id, entry_id) references entries,
    constraint redemptions_state_check check (state between 1 and 4 and (state = 1) = (closed_at is null))
);
create index redemptions_account_idx on redemptions (tenant_id, account_id, redemption_id desc);
create index redemptions_reward_idx on redemptions (tenant_id, reward_id, account_id);
create index redemptions_hash_idx on redemptions (tenant_id, code_hash);
create index redemptions_due_idx on redemptions (tenant_id, expires_at) where state = 1 and expires_at is not null;

-- A code that was given out keeps its fingerprint, so that it is never given again.
create table pool_codes (
    tenant_id uuid not null,
    code_id uuid not null,
    pool_id uuid not null,
    business_id uuid not null,
    code_hash bytea not null,
    key_id uuid not null,
    sealed bytea,
    redemption_id uuid,
    constraint pool_codes_pkey primary key (tenant_id, code_id),
    constraint pool_codes_hash_key unique (tenant_id, business_id, code_hash),
    constraint pool_codes_pool_fkey foreign key (tenant_id, pool_id) references code_pools,
    constraint pool_codes_redemption_fkey foreign key (tenant_id, redemption_id) references redemptions,
    constraint pool_codes_taken_check check ((redemption_id is null) = (sealed is not null))
);
create index pool_codes_free_idx on pool_codes (tenant_id, pool_id, code_id) where redemption_id is null;
create index pool_codes_pool_idx on pool_codes (tenant_id, pool_id);
create index pool_codes_redemption_idx on pool_codes (tenant_id, redemption_id);
"""

WALLED = ("code_pools", "rewards", "redemptions", "pool_codes")


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
