"""Businesses, programs with their rules, and the ledger."""

from alembic import op

revision = "0002"
down_revision = "0001"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Locks are taken in this order: rows of `orders` by order id; new accounts by program and customer; `accounts` by
# account id. Whoever holds an account's row alone reads and writes its lots, entries, holds, awards and judged orders.
TABLES = """
create table businesses (
    tenant_id uuid not null,
    business_id uuid not null,
    currency text not null,
    time_zone text not null,
    archived boolean not null,
    version bigint not null,
    constraint businesses_pkey primary key (tenant_id, business_id)
);

create table programs (
    tenant_id uuid not null,
    program_id uuid not null,
    business_id uuid not null,
    name text not null,
    is_default boolean not null,
    active boolean not null,
    settings jsonb not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint programs_pkey primary key (tenant_id, program_id)
);
create unique index programs_default_idx on programs (tenant_id, business_id) where is_default;

-- Every version of every rule: what holds now has no end. A deleted rule has no version that holds.
create table earning_rules (
    tenant_id uuid not null,
    rule_id uuid not null,
    version bigint not null,
    business_id uuid not null,
    program_id uuid not null,
    definition jsonb not null,
    created_at timestamptz not null,
    holds_from timestamptz not null,
    holds_until timestamptz,
    constraint earning_rules_pkey primary key (tenant_id, rule_id, version),
    constraint earning_rules_program_fkey foreign key (tenant_id, program_id) references programs
);
create unique index earning_rules_current_idx on earning_rules (tenant_id, rule_id) where holds_until is null;
create index earning_rules_program_idx on earning_rules (tenant_id, program_id, holds_from);

-- `balance` is what is left of the lots that are not pending, less `debt`. `entries` counts the entries.
create table accounts (
    tenant_id uuid not null,
    account_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    customer_id uuid not null,
    balance bigint not null default 0,
    pending bigint not null default 0,
    held bigint not null default 0,
    debt bigint not null default 0,
    shortfall bigint not null default 0,
    lifetime bigint not null default 0,
    redeemed bigint not null default 0,
    expired bigint not null default 0,
    entries bigint not null default 0,
    version bigint not null default 0,
    opened_at timestamptz not null,
    active_at timestamptz,
    constraint accounts_pkey primary key (tenant_id, account_id),
    constraint accounts_member_key unique (tenant_id, program_id, customer_id),
    constraint accounts_program_fkey foreign key (tenant_id, program_id) references programs,
    constraint accounts_balance_check check (balance + debt >= held),
    constraint accounts_signs_check check (
        pending >= 0 and held >= 0 and debt >= 0 and shortfall >= 0 and lifetime >= 0 and entries >= 0)
);
create index accounts_customer_idx on accounts (tenant_id, customer_id);

create table entries (
    tenant_id uuid not null,
    entry_id uuid not null,
    account_id uuid not null,
    seq bigint not null,
    business_id uuid not null,
    kind smallint not null,
    points bigint not null,
    balance_points bigint not null,
    pending_points bigint not null,
    opening_balance bigint not null,
    opening_pending bigint not null,
    booked_at timestamptz not null,
    effective_at timestamptz not null,
    order_id uuid,
    source text not null,
    reverses_id uuid,
    hold_id uuid,
    counterpart_id uuid,
    available_at timestamptz,
    expires_at timestamptz,
    shortfall bigint not null,
    reasons jsonb not null,
    actor text not null,
    key_id uuid,
    sealed bytea,
    constraint entries_pkey primary key (tenant_id, entry_id),
    -- The place of an entry in its account is taken once: no two writers continue from the same balance.
    constraint entries_seq_key unique (tenant_id, account_id, seq),
    constraint entries_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint entries_points_check check (
        case kind when 7 then balance_points = points and pending_points = -points
                  else points = balance_points + pending_points end),
    constraint entries_effective_check check (effective_at <= booked_at)
);
create index entries_order_idx on entries (tenant_id, order_id) where order_id is not null;
create index entries_reverses_idx on entries (tenant_id, reverses_id) where reverses_id is not null;

create table lots (
    tenant_id uuid not null,
    lot_id uuid not null,
    account_id uuid not null,
    business_id uuid not null,
    points bigint not null,
    remaining bigint not null,
    held bigint not null,
    pending boolean not null,
    earned_at timestamptz not null,
    available_at timestamptz,
    expires_at timestamptz,
    order_id uuid,
    entry_id uuid not null,
    origin_lot_id uuid,
    noticed boolean not null default false,
    constraint lots_pkey primary key (tenant_id, lot_id),
    constraint lots_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint lots_remaining_check check (0 <= held and held <= remaining and remaining <= points),
    constraint lots_pending_check check (not pending or (held = 0 and available_at is not null))
);
create index lots_account_idx on lots (tenant_id, account_id);
create index lots_expiry_idx on lots (tenant_id, expires_at) where remaining > 0 and expires_at is not null;
create index lots_pending_idx on lots (tenant_id, available_at) where pending;

-- What an entry moved into a lot, or out of it: remaining = points + all that was moved.
create table allocations (
    tenant_id uuid not null,
    entry_id uuid not null,
    lot_id uuid not null,
    business_id uuid not null,
    points bigint not null,
    constraint allocations_pkey primary key (tenant_id, entry_id, lot_id),
    constraint allocations_entry_fkey foreign key (tenant_id, entry_id) references entries,
    constraint allocations_lot_fkey foreign key (tenant_id, lot_id) references lots
);
create index allocations_lot_idx on allocations (tenant_id, lot_id);

create table holds (
    tenant_id uuid not null,
    hold_id uuid not null,
    account_id uuid not null,
    business_id uuid not null,
    points bigint not null,
    captured bigint not null,
    state smallint not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    closed_at timestamptz,
    order_id uuid,
    entry_id uuid,
    constraint holds_pkey primary key (tenant_id, hold_id),
    constraint holds_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint holds_points_check check (points > 0 and captured between 0 and points),
    constraint holds_state_check check ((state = 1) = (closed_at is null) and (state = 2) = (entry_id is not null))
);
create index holds_account_idx on holds (tenant_id, account_id);
create index holds_due_idx on holds (tenant_id, expires_at) where state = 1;

create table hold_lots (
    tenant_id uuid not null,
    hold_id uuid not null,
    lot_id uuid not null,
    business_id uuid not null,
    points bigint not null,
    constraint hold_lots_pkey primary key (tenant_id, hold_id, lot_id),
    constraint hold_lots_hold_fkey foreign key (tenant_id, hold_id) references holds,
    constraint hold_lots_lot_fkey foreign key (tenant_id, lot_id) references lots
);
create index hold_lots_lot_idx on hold_lots (tenant_id, lot_id);

-- The newest that was heard of an order that was ever completed. `facts` are what rules look at.
create table orders (
    tenant_id uuid not null,
    order_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    version bigint not null,
    cancelled boolean not null,
    placed_at timestamptz not null,
    completed_at timestamptz not null,
    local_day date not null,
    total_minor bigint not null,
    refunded_minor bigint not null,
    facts jsonb not null,
    constraint orders_pkey primary key (tenant_id, order_id)
);
create index orders_customer_idx on orders (tenant_id, business_id, customer_id, local_day);

-- What an order did to an account: `given` by the rules for its amounts; of that `reclaimed` by returns, `shortfall`
-- of which could not be taken. `spent` on it, and of that `returned`. `context` is what was true of the member when the
-- order was first judged; the version of the order that is worked in, so that an older one changes nothing.
create table judged_orders (
    tenant_id uuid not null,
    program_id uuid not null,
    order_id uuid not null,
    business_id uuid not null,
    account_id uuid not null,
    version bigint not null,
    judged_at timestamptz not null,
    context jsonb not null,
    given bigint not null,
    reclaimed bigint not null,
    shortfall bigint not null,
    constraint judged_orders_pkey primary key (tenant_id, program_id, order_id),
    constraint judged_orders_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint judged_orders_reclaimed_check check (0 <= shortfall and shortfall <= reclaimed and reclaimed <= given)
);
create index judged_orders_account_idx on judged_orders (tenant_id, account_id);
create index judged_orders_order_idx on judged_orders (tenant_id, order_id);

-- The earn key: a rule gives once for a source ("order:<id>", "birthday:2026:<account>").
create table awards (
    tenant_id uuid not null,
    program_id uuid not null,
    source text not null,
    rule_id uuid not null,
    business_id uuid not null,
    account_id uuid not null,
    local_day date not null,
    points bigint not null,
    constraint awards_pkey primary key (tenant_id, program_id, source, rule_id),
    constraint awards_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint awards_points_check check (points >= 0)
);
create index awards_account_idx on awards (tenant_id, account_id, rule_id, local_day);

alter table memberships add column guest boolean not null default false;
"""

WALLED = (
    "businesses",
    "programs",
    "earning_rules",
    "accounts",
    "entries",
    "lots",
    "allocations",
    "holds",
    "hold_lots",
    "orders",
    "judged_orders",
    "awards",
)


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
