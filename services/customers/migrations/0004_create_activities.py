"""Activities by month, what changed about customers, and what other services report of them."""

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# The primary key of activities is also the index of the timeline. A key of a partitioned table holds what it is
# partitioned by, so that an id is recorded once although it may come with another time is the work of activity_ids.
# There is no foreign key to memberships: attaching a month would lock them against all writers, and each activity
# would write to its membership. With a membership a trigger deletes its activities; a lock that those who record for
# a tenant share, and that a deletion takes alone before it touches a row, keeps both apart.
TABLES = """
alter table businesses add column keep_visitor_details boolean not null default false;

create table activities (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    occurred_at timestamptz not null,
    activity_id uuid not null,
    kind smallint not null,
    name text,
    session text,
    utm_source text,
    utm_medium text,
    utm_campaign text,
    utm_term text,
    utm_content text,
    referrer text,
    device smallint,
    country text,
    sku text,
    product_name text,
    product_category text,
    brand text,
    quantity integer,
    value_minor bigint,
    currency text,
    key_id uuid,
    sealed bytea,
    sealed_ip bytea,
    recorded_at timestamptz not null,
    constraint activities_pkey primary key (tenant_id, business_id, customer_id, occurred_at, activity_id),
    constraint activities_key_check check ((key_id is null) = (sealed is null and sealed_ip is null))
) partition by range (occurred_at);
create table activities_other partition of activities default;
create index activities_ip_idx on activities (tenant_id, recorded_at) where sealed_ip is not null;

create table activity_ids (
    tenant_id uuid not null,
    business_id uuid not null,
    activity_id uuid not null,
    occurred_at timestamptz not null,
    constraint activity_ids_pkey primary key (tenant_id, business_id, activity_id)
);

create table customer_changes (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    changed_at timestamptz not null,
    change_id uuid not null,
    kind smallint not null,
    fields text[] not null,
    actor text not null,
    constraint customer_changes_pkey primary key (tenant_id, business_id, customer_id, changed_at, change_id),
    constraint customer_changes_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);

create table customer_reports (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    reported_at timestamptz not null,
    event_id uuid not null,
    event text not null,
    facts jsonb not null,
    constraint customer_reports_pkey primary key (tenant_id, business_id, customer_id, reported_at, event_id),
    constraint customer_reports_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);

create function activities_lock() returns bigint language sql stable as $$
    select hashtextextended('activities ' || current_schema() || ' ' || current_setting('app.tenant_id', true), 0)
$$;
create function wait_for_activities() returns trigger language plpgsql as $$
begin
    perform pg_advisory_xact_lock(activities_lock());
    return null;
end
$$;
create trigger memberships_wait before delete on memberships
    for each statement execute function wait_for_activities();
create function delete_activities_of_membership() returns trigger language plpgsql as $$
begin
    delete from activities
    where tenant_id = old.tenant_id and business_id = old.business_id and customer_id = old.customer_id;
    return null;
end
$$;
create trigger memberships_activities after delete on memberships
    for each row execute function delete_activities_of_membership();

create index notes_timeline_idx on notes (tenant_id, business_id, customer_id, created_at desc, note_id desc);
"""

# Makes the partition of the month of `day`, with everything of that month that waits in the default partition.
# It runs as the owner, because the application owns nothing. Nobody reads a partition by its own name: it has
# row-level security and no policy, and the policies of the parent hold for whoever asks the parent. It gives up soon if
# it gets no lock: who waits for one keeps all readers waiting behind it.
MAKE_MONTH = """
create function make_activity_month(day date) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    home constant text := {schema};
    first constant date := date_trunc('month', day)::date;
    since constant timestamptz := first::timestamp at time zone 'UTC';
    until constant timestamptz := (first + interval '1 month')::timestamp at time zone 'UTC';
    month constant text := 'activities_' || to_char(first, 'YYYY_MM');
begin
    if first not between date '2000-01-01' and date '2199-12-01' then
        return false;
    end if;
    if to_regclass(format('%I.%I', home, month)) is not null then
        return false;
    end if;
    perform pg_advisory_xact_lock(hashtextextended('make_activity_month ' || home, 0));
    if to_regclass(format('%I.%I', home, month)) is not null then
        return false;
    end if;
    execute format(
        'create table %1$I.%2$I (like %1$I.activities including defaults including constraints)', home, month
    );
    execute format('alter table %I.%I enable row level security', home, month);
    execute format('lock table %I.activities_other in access exclusive mode', home);
    execute format(
        'with moved as ('
        'delete from %1$I.activities_other where occurred_at >= %3$L and occurred_at < %4$L returning *)'
        ' insert into %1$I.%2$I select * from moved',
        home, month, since, until
    );
    execute format(
        'alter table %1$I.activities attach partition %1$I.%2$I for values from (%3$L) to (%4$L)',
        home, month, since, until
    );
    execute format('revoke all on %I.%I from %I', home, month, {app});
    return true;
end
$$
"""

WALLED = ["activities", "activity_ids", "customer_changes", "customer_reports"]


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive"
            f" using ({BUSINESS}) with check ({BUSINESS})"
        )
    schema, app, app_name, worker = (
        op.get_bind()
        .execute(
            text(
                "select quote_literal(current_schema()), quote_ident(current_setting('regulars.app_role')),"
                " quote_literal(current_setting('regulars.app_role')),"
                " quote_ident(current_setting('regulars.worker_role'))"
            )
        )
        .one()
    )
    op.execute("alter table activities_other enable row level security")
    op.execute(f"revoke all on activities_other from {app}")
    op.execute(MAKE_MONTH.format(schema=schema, app=app_name))
    op.execute("revoke all on function make_activity_month(date) from public")
    op.execute(f"grant execute on function make_activity_month(date) to {app}, {worker}")
    op.execute(
        "select make_activity_month((current_date + n * interval '1 month')::date) from generate_series(0, 3) n"
    )
