"""What rewards, revenue and cohorts are reported from: redemptions, orders and entries, folded into days and months."""

from alembic import op

revision = "0008"
down_revision = "0007"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# `fold_marks`: what happened before `folded_until` is in the rows of that subject; a report adds what came since.
TABLES = """
create table fold_marks (
    tenant_id uuid not null,
    subject text not null,
    folded_until timestamptz not null,
    constraint fold_marks_pkey primary key (tenant_id, subject)
);

-- `used_minor` is what the rewards that were used are worth, less the money that was paid besides.
create table reward_days (
    tenant_id uuid not null,
    reward_id uuid not null,
    day date not null,
    business_id uuid not null,
    program_id uuid not null,
    redeemed bigint not null,
    used bigint not null,
    cancelled bigint not null,
    expired bigint not null,
    spent bigint not null,
    returned bigint not null,
    used_minor bigint not null,
    constraint reward_days_pkey primary key (tenant_id, reward_id, day)
);
create index reward_days_program_idx on reward_days (tenant_id, program_id, day);
create index redemptions_issued_idx on redemptions (tenant_id, issued_at);
create index redemptions_closed_idx on redemptions (tenant_id, closed_at) where closed_at is not null;

-- Members by the month in which they joined, and what they did in each month since. `report_members` keeps the
-- last month in which a member was counted as active.
create table cohort_months (
    tenant_id uuid not null,
    program_id uuid not null,
    joined date not null,
    month date not null,
    business_id uuid not null,
    active bigint not null,
    issued bigint not null,
    redeemed bigint not null,
    constraint cohort_months_pkey primary key (tenant_id, program_id, joined, month)
);
create table report_members (
    tenant_id uuid not null,
    account_id uuid not null,
    business_id uuid not null,
    joined date not null,
    month date not null,
    constraint report_members_pkey primary key (tenant_id, account_id),
    constraint report_members_account_fkey foreign key (tenant_id, account_id) references accounts
);
create index memberships_joined_idx on memberships (tenant_id, business_id, joined_at)
    where present and not deleted and merged_into is null and joined_at is not null;

-- What orders changed of a day's revenue since it was folded. Written by triggers: they alone know what an order was
-- before, whoever else writes it at the same time.
create table revenue_changes (
    tenant_id uuid not null,
    change_id bigint not null generated always as identity,
    business_id uuid not null,
    day date not null,
    orders bigint not null,
    net_minor bigint not null,
    constraint revenue_changes_pkey primary key (tenant_id, change_id)
);
create table revenue_days (
    tenant_id uuid not null,
    business_id uuid not null,
    day date not null,
    orders bigint not null,
    net_minor bigint not null,
    constraint revenue_days_pkey primary key (tenant_id, business_id, day)
);

create function note_new_revenue() returns trigger language plpgsql as $$
begin
    insert into revenue_changes (tenant_id, business_id, day, orders, net_minor)
    select n.tenant_id, n.business_id, n.local_day, count(*), sum(n.total_minor - n.refunded_minor)
    from fresh n where not n.cancelled group by 1, 2, 3;
    return null;
end $$;
create trigger orders_new_revenue after insert on orders referencing new table as fresh
    for each statement execute function note_new_revenue();

create function note_changed_revenue() returns trigger language plpgsql as $$
begin
    insert into revenue_changes (tenant_id, business_id, day, orders, net_minor)
    select c.tenant_id, c.business_id, c.local_day, sum(c.orders), sum(c.net_minor) from (
        select n.tenant_id, n.business_id, n.local_day, 1 as orders, n.total_minor - n.refunded_minor as net_minor
        from fresh n where not n.cancelled
        union all
        select o.tenant_id, o.business_id, o.local_day, -1, o.refunded_minor - o.total_minor
        from stale o where not o.cancelled
    ) c group by 1, 2, 3 having sum(c.orders) <> 0 or sum(c.net_minor) <> 0;
    return null;
end $$;
create trigger orders_changed_revenue after update on orders referencing old table as stale new table as fresh
    for each statement execute function note_changed_revenue();

insert into revenue_changes (tenant_id, business_id, day, orders, net_minor)
select tenant_id, business_id, local_day, count(*), sum(total_minor - refunded_minor)
from orders where not cancelled group by 1, 2, 3;
"""

BY_BUSINESS = ("reward_days", "cohort_months", "report_members", "revenue_changes", "revenue_days")


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("fold_marks", *BY_BUSINESS):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    for table in BY_BUSINESS:
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
