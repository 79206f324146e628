"""Orders, and what is counted of them per customer."""

from alembic import op

revision = "0003"
down_revision = "0002"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Items are a column and no table of their own: they are replaced whole with each revision, read whole with their
# order and never without it; what is counted of them has its own rows in customer_favourites.
#
# Orders are looked up by (tenant, order) and by (tenant, business, source, external id), each the only index that
# fits: the other key has no second column in common, and the lists' indexes are partial. On a table that was never
# analysed the planner takes any index whose first two columns are given for as good as the whole key.
#
# A row of status 0 is an order that is known by its refund alone (refund_notice_minor): it waits for the order.
TABLES = """
create table orders (
    tenant_id uuid not null,
    business_id uuid not null,
    order_id uuid not null,
    customer_id uuid,
    source text not null,
    external_id text not null,
    revision bigint not null,
    content bytea not null,
    version bigint not null,
    status smallint not null,
    placed_at timestamptz not null,
    local_day date not null,
    completed_at timestamptz,
    fulfilled_at timestamptz,
    delivered_at timestamptz,
    channel text not null,
    store text not null,
    items jsonb not null,
    quantity bigint not null,
    tax_included boolean not null,
    subtotal_minor bigint not null,
    discount_minor bigint not null,
    shipping_minor bigint not null,
    tax_minor bigint not null,
    total_minor bigint not null,
    refunded_minor bigint not null,
    refund_notice_minor bigint not null,
    tags text[] not null,
    payments jsonb not null,
    deliveries jsonb not null,
    key_id uuid,
    sealed bytea,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint orders_pkey primary key (tenant_id, order_id),
    constraint orders_external_id_key unique (tenant_id, business_id, source, external_id),
    constraint orders_customer_check check ((customer_id is null) = (status = 0)),
    constraint orders_refunded_check check (refunded_minor between 0 and total_minor),
    constraint orders_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);
create index orders_customer_idx on orders (tenant_id, customer_id, business_id, placed_at desc, order_id desc)
    where customer_id is not null;
create index orders_placed_idx on orders (tenant_id, business_id, placed_at desc, order_id desc)
    where status <> 0;

create table customer_metrics (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    orders_recorded integer not null,
    orders_completed integer not null,
    orders_cancelled integer not null,
    orders_refunded integer not null,
    total_spent_minor bigint not null,
    refunded_minor bigint not null,
    net_minor bigint not null,
    average_order_minor bigint not null,
    first_order_at timestamptz,
    last_order_at timestamptz,
    items bigint not null,
    visits integer not null,
    favourite_category text,
    favourite_brand text,
    lifecycle_stage smallint not null,
    updated_at timestamptz not null,
    constraint customer_metrics_pkey primary key (tenant_id, business_id, customer_id),
    constraint customer_metrics_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);

create table customer_daily (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    day date not null,
    orders integer not null,
    spent_minor bigint not null,
    constraint customer_daily_pkey primary key (tenant_id, business_id, customer_id, day),
    constraint customer_daily_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);

create table customer_favourites (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    kind text not null,
    name text not null,
    quantity bigint not null,
    spent_minor bigint not null,
    constraint customer_favourites_pkey primary key (tenant_id, business_id, customer_id, kind, name),
    constraint customer_favourites_kind_check check (kind in ('brand', 'category')),
    constraint customer_favourites_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);
"""

WALLED = ["orders", "customer_metrics", "customer_daily", "customer_favourites"]


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive"
            f" using ({BUSINESS}) with check ({BUSINESS})"
        )
        op.execute(f"alter table {table} set (fillfactor = 90)")
