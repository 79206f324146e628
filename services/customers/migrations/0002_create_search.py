"""What customers are searched by: tokens of their names and contact data, and the function that matches them.

And saved views.
"""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"

BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

TABLES = """
create table customer_search (
    tenant_id uuid not null,
    customer_id uuid not null,
    key_version integer not null,
    tokens integer[] not null,
    businesses uuid[] not null,
    country text,
    city integer,
    constraint customer_search_pkey primary key (tenant_id, customer_id, key_version),
    constraint customer_search_customer_fkey foreign key (tenant_id, customer_id) references customers
);
create index customer_search_tokens_idx on customer_search using gin (tokens)
    with (fastupdate = on, gin_pending_list_limit = 1024);
create index customer_search_country_idx on customer_search (tenant_id, country, customer_id)
    where country is not null;
create index customer_search_city_idx on customer_search (tenant_id, city, customer_id) where city is not null;

create table saved_views (
    tenant_id uuid not null,
    view_id uuid not null,
    business_id uuid not null,
    owner text not null,
    shared boolean not null,
    key_id uuid not null,
    sealed bytea not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint saved_views_pkey primary key (tenant_id, view_id),
    constraint saved_views_business_fkey foreign key (tenant_id, business_id) references businesses
);
create index saved_views_business_idx on saved_views (tenant_id, business_id, view_id desc);

create type search_filter as (
    status smallint[],
    type smallint[],
    tags_any text[],
    tags_all text[],
    source text[],
    country text[],
    city integer,
    created_after timestamptz,
    created_before timestamptz,
    last_order_after timestamptz,
    last_order_before timestamptz,
    total_spent_min bigint,
    total_spent_max bigint,
    order_count_min integer,
    order_count_max integer,
    attributes jsonb
);
"""

# Conditions are [{"name", "in": [...]} or {"name", "min", "max"}]; a value of another type agrees with none.
ATTRIBUTES = """
create function attributes_agree(attributes jsonb, conditions jsonb) returns boolean
language sql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
    select not exists (
        select from jsonb_array_elements(conditions) as c
        where (
            (not c ? 'in' or c -> 'in' @> (attributes -> (c ->> 'name')))
            and (not c ? 'min' or (jsonb_typeof(c -> 'min') = jsonb_typeof(attributes -> (c ->> 'name'))
                                   and attributes -> (c ->> 'name') >= c -> 'min'))
            and (not c ? 'max' or (jsonb_typeof(c -> 'max') = jsonb_typeof(attributes -> (c ->> 'name'))
                                   and attributes -> (c ->> 'name') <= c -> 'max'))
        ) is not true
    )
$$
"""

# The conditions on tokens are no leakproof operators, so below a policy no index would serve them: the function
# is its owner's and does by itself what the policies do. It answers with ids alone. Decision 0012 has the reasons
# for the settings, each of which cures a plan that was a hundred times slower; `rows` is low on purpose, so that who
# joins the candidates looks each of them up.
CANDIDATES = """
create function search_candidates(
    p_business uuid, p_key_version integer, p_all integer[], p_any1 integer[], p_any2 integer[], p_any3 integer[],
    p_ids uuid[], p_filter jsonb, p_limit integer
) returns setof uuid
language plpgsql stable security definer rows 50
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_indexscan = off
set enable_indexonlyscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
    tenant constant uuid := nullif(current_setting('app.tenant_id', true), '')::uuid;
    seen constant text := current_setting('app.businesses', true);
    f {schema}.search_filter;
    -- Where tokens are asked for, in a form that no other index serves.
    wanted text := case when p_ids is not null then 's.tenant_id = $1 and s.key_version = $3'
        else '(s.tenant_id = $1) is true and (s.key_version = $3) is true' end
        || ' and s.businesses operator(pg_catalog.@>) array[$2]';
    member text := '';
begin
    if tenant is null or p_business is null then
        return;
    end if;
    if seen is distinct from '*' then
        if not coalesce(p_business = any (string_to_array(nullif(seen, ''), ',')::uuid[]), false) then
            return;
        end if;
    end if;
    if p_ids is not null then
        wanted := wanted || ' and s.customer_id = any ($8)';
    elsif p_all is null and p_any1 is null then
        return;
    end if;
    if p_all is not null then wanted := wanted || ' and s.tokens operator(pg_catalog.@>) $4'; end if;
    if p_any1 is not null then wanted := wanted || ' and s.tokens operator(pg_catalog.&&) $5'; end if;
    if p_any2 is not null then wanted := wanted || ' and s.tokens operator(pg_catalog.&&) $6'; end if;
    if p_any3 is not null then wanted := wanted || ' and s.tokens operator(pg_catalog.&&) $7'; end if;
    if p_filter is not null then
        f := jsonb_populate_record(null::{schema}.search_filter, p_filter);
        -- In forms that no index serves: half of all customers may live in one country.
        if f.country is not null then
            wanted := wanted || ' and coalesce(s.country, '''') = any ($9.country)';
        end if;
        if f.city is not null then wanted := wanted || ' and s.city is not distinct from $9.city'; end if;
        if f.status is not null then member := member || ' and m.status = any ($9.status)'; end if;
        if f.type is not null then member := member || ' and m.type = any ($9.type)'; end if;
        if f.source is not null then member := member || ' and m.source = any ($9.source)'; end if;
        if f.tags_any is not null then
            member := member || ' and exists (select from unnest(m.tags) as tag where lower(tag) = any ($9.tags_any))';
        end if;
        if f.tags_all is not null then
            member := member
                || ' and (select array_agg(lower(tag)) from unnest(m.tags) as tag) operator(pg_catalog.@>) $9.tags_all';
        end if;
        if f.attributes is not null then
            member := member || ' and {schema}.attributes_agree(m.attributes, $9.attributes)';
        end if;
        if f.created_after is not null then member := member || ' and p.created_at >= $9.created_after'; end if;
        if f.created_before is not null then member := member || ' and p.created_at < $9.created_before'; end if;
        if f.last_order_after is not null then
            member := member || ' and x.last_order_at >= $9.last_order_after';
        end if;
        if f.last_order_before is not null then
            member := member || ' and x.last_order_at < $9.last_order_before';
        end if;
        if f.total_spent_min is not null then
            member := member || ' and coalesce(x.total_spent_minor, 0) >= $9.total_spent_min';
        end if;
        if f.total_spent_max is not null then
            member := member || ' and coalesce(x.total_spent_minor, 0) <= $9.total_spent_max';
        end if;
        if f.order_count_min is not null then
            member := member || ' and coalesce(x.orders_completed, 0) >= $9.order_count_min';
        end if;
        if f.order_count_max is not null then
            member := member || ' and coalesce(x.orders_completed, 0) <= $9.order_count_max';
        end if;
    end if;
    if member <> '' then
        member := ' cross join lateral (select from {schema}.memberships m'
            || case when position('x.' in member) > 0 then
                ' left join {schema}.customer_metrics x on x.tenant_id = m.tenant_id'
                ' and x.business_id = m.business_id and x.customer_id = m.customer_id' else '' end
            || case when position('p.created_at' in member) > 0 then
                ' join {schema}.customers p on p.tenant_id = m.tenant_id and p.customer_id = m.customer_id'
                else '' end
            || ' where m.tenant_id = $1 and m.business_id = $2 and m.customer_id = s.customer_id'
            || ' and m.deleted_at is null' || member || ' limit 1) as agreed';
    end if;
    return query execute
        'select s.customer_id from {schema}.customer_search s' || member || ' where ' || wanted || ' limit $10'
        using tenant, p_business, p_key_version, p_all, p_any1, p_any2, p_any3, p_ids, f, p_limit;
end
$$
"""
SIGNATURE = (
    "search_candidates(uuid, integer, integer[], integer[], integer[], integer[], uuid[], jsonb, integer)"
)


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("customer_search", "saved_views"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on saved_views as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
    op.execute(ATTRIBUTES)
    bind = op.get_bind()
    schema = bind.execute(text("select quote_ident(current_schema())")).scalar_one()
    app = bind.execute(text("select quote_ident(current_setting('regulars.app_role'))")).scalar_one()
    op.execute(CANDIDATES.replace("{schema}", schema))
    op.execute(f"revoke all on function {SIGNATURE} from public")
    op.execute(f"grant execute on function {SIGNATURE} to {app}")
    op.execute("revoke all on function attributes_agree(jsonb, jsonb) from public")
    op.execute(f"grant execute on function attributes_agree(jsonb, jsonb) to {app}")
