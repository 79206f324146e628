"""Which tenants have something to do by now, asked once for all of them."""

from alembic import op
from sqlalchemy import text

revision = "0017"
down_revision = "0016"

# It runs as the owner, because walls let nobody else look across tenants, and gives ids alone: what there is to do is
# read within the walls of each. Each look is by an index of (tenant, instant), so who has nothing to do costs a few of
# them. `at`: for reports the instant before which everything is settled, else now.
FIND = """
create function tenants_with_work(subject text, at timestamptz) returns setof uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
    if subject = 'ledger' then
        return query select t.tenant_id from {schema}.tenants t where t.closed_at is null and (
            exists (select from {schema}.holds h
                    where h.tenant_id = t.tenant_id and h.state = 1 and h.expires_at <= at)
            or exists (select from {schema}.lots l
                       where l.tenant_id = t.tenant_id and l.pending and l.available_at <= at)
            or exists (select from {schema}.lots l
                       where l.tenant_id = t.tenant_id and l.remaining > 0 and l.expires_at is not null
                         and l.expires_at <= at and l.remaining > l.held and not l.pending)
        ) order by 1;
    elsif subject = 'rewards' then
        return query select t.tenant_id from {schema}.tenants t where t.closed_at is null and (
            exists (select from {schema}.redemptions d
                    where d.tenant_id = t.tenant_id and d.state = 1 and d.expires_at is not null and d.expires_at <= at)
            or exists (select from {schema}.rewards r
                       where r.tenant_id = t.tenant_id and r.published_at is null and r.active
                         and r.deleted_at is null and (r.valid_from is null or r.valid_from <= at)
                         and (r.valid_until is null or r.valid_until > at))
        ) order by 1;
    elsif subject = 'referrals' then
        return query select t.tenant_id from {schema}.tenants t where t.closed_at is null and exists (
            select from {schema}.referrals r where r.tenant_id = t.tenant_id and r.due_at <= at
        ) order by 1;
    elsif subject = 'tiers' then
        return query select t.tenant_id from {schema}.tenants t where t.closed_at is null and (
            exists (select from {schema}.standings s where s.tenant_id = t.tenant_id and s.review_at <= at)
            or exists (select from {schema}.standings s where s.tenant_id = t.tenant_id and s.override_until <= at)
        ) order by 1;
    elsif subject = 'households' then
        return query select t.tenant_id from {schema}.tenants t where t.closed_at is null and exists (
            select from {schema}.lots l where l.tenant_id = t.tenant_id and l.pooled and l.remaining > 0
        ) order by 1;
    elsif subject = 'people' then
        return query select t.tenant_id from {schema}.tenants t where t.closed_at is null and exists (
            select from {schema}.people p where p.tenant_id = t.tenant_id and p.wanted
        ) order by 1;
    elsif subject = 'reports' then
        return query select t.tenant_id from {schema}.tenants t
        cross join lateral (
            select coalesce((select m.folded_until from {schema}.report_marks m where m.tenant_id = t.tenant_id),
                            '-infinity') as points,
                   coalesce((select m.folded_until from {schema}.fold_marks m
                             where m.tenant_id = t.tenant_id and m.subject = 'cohorts'), '-infinity') as cohorts,
                   coalesce((select m.folded_until from {schema}.fold_marks m
                             where m.tenant_id = t.tenant_id and m.subject = 'rewards'), '-infinity') as rewards
        ) k
        where t.closed_at is null and (
            exists (select from {schema}.revenue_changes c where c.tenant_id = t.tenant_id)
            or exists (select from {schema}.entries e
                       where e.tenant_id = t.tenant_id and e.booked_at >= least(k.points, k.cohorts)
                         and e.booked_at < at)
            or exists (select from {schema}.redemptions d
                       where d.tenant_id = t.tenant_id and d.issued_at >= k.rewards and d.issued_at < at)
            or exists (select from {schema}.redemptions d
                       where d.tenant_id = t.tenant_id and d.closed_at >= k.rewards and d.closed_at < at)
            or exists (select from {schema}.redemptions d
                       where d.tenant_id = t.tenant_id and d.state = 1 and d.expires_at is not null
                         and d.expires_at >= k.rewards and d.expires_at < at)
        ) order by 1;
    else
        raise exception 'no such subject';
    end if;
end
$$
"""


def upgrade() -> None:
    names = (
        "current_schema()",
        "current_setting('regulars.app_role')",
        "current_setting('regulars.worker_role')",
    )
    quoted = ", ".join(f"quote_ident({name})" for name in names)
    schema, app, worker = op.get_bind().execute(text(f"select {quoted}")).one()
    op.execute(FIND.format(schema=schema))
    op.execute("revoke all on function tenants_with_work(text, timestamptz) from public")
    op.execute(f"revoke all on function tenants_with_work(text, timestamptz) from {app}")
    op.execute(f"grant execute on function tenants_with_work(text, timestamptz) to {worker}")
