"""Referrals: members' codes, and the friends whom they invited or brought."""

from alembic import op

revision = "0009"
down_revision = "0008"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# A code is good for any number of friends of a member; an invitation has a code of its own. Who a customer of a code
# is by now, merges say: codes stay where they are. A referral names whom its people are by now; `referrer_id` and
# `friend_id` are absent once they are erased. `due_at`: when it is looked at; absent: when something happens.
TABLES = """
create table referral_codes (
    tenant_id uuid not null,
    code text not null,
    business_id uuid not null,
    program_id uuid not null,
    customer_id uuid not null,
    made_at timestamptz not null,
    constraint referral_codes_pkey primary key (tenant_id, code),
    constraint referral_codes_member_key unique (tenant_id, program_id, customer_id)
);
create index referral_codes_customer_idx on referral_codes (tenant_id, customer_id);

create table referrals (
    tenant_id uuid not null,
    referral_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    referrer_id uuid,
    friend_id uuid,
    code text,
    state smallint not null,
    reason text not null,
    matches smallint[] not null,
    approved boolean not null,
    referrer_points bigint not null,
    friend_points bigint not null,
    minimum_order_minor bigint not null,
    order_id uuid,
    created_at timestamptz not null,
    registered_at timestamptz,
    qualified_at timestamptz,
    rewarded_at timestamptz,
    expires_at timestamptz,
    due_at timestamptz,
    reviewed_by text not null,
    referrer_entry_id uuid,
    friend_entry_id uuid,
    version bigint not null,
    constraint referrals_pkey primary key (tenant_id, referral_id),
    constraint referrals_program_fkey foreign key (tenant_id, program_id) references programs,
    constraint referrals_state_check check (state between 1 and 9)
);
create unique index referrals_code_key on referrals (tenant_id, code) where code is not null;
create index referrals_referrer_idx on referrals (tenant_id, referrer_id, program_id, referral_id)
    where referrer_id is not null;
create index referrals_friend_idx on referrals (tenant_id, friend_id) where friend_id is not null;
create index referrals_order_idx on referrals (tenant_id, order_id) where order_id is not null;
create index referrals_due_idx on referrals (tenant_id, due_at) where due_at is not null;
create index referrals_program_idx on referrals (tenant_id, program_id, referral_id);
create index referrals_flagged_idx on referrals (tenant_id, program_id, referral_id) where state = 3;
create index referrals_made_idx on referrals (tenant_id, program_id, created_at);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("referral_codes", "referrals"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
