"""Create the tables of keys, and the one way to read which versions are live.

Run in every service's schema. Only the application's role sees them: the worker needs no keys.
"""

from alembic import op
from sqlalchemy import text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
create table subject_keys (
    tenant_id uuid not null,
    key_id uuid not null,
    subject_id uuid not null,
    epoch integer not null,
    wrapped bytea,
    created_at timestamptz not null,
    destroyed_at timestamptz,
    constraint subject_keys_pkey primary key (tenant_id, key_id),
    constraint subject_keys_destroyed_check check ((wrapped is null) = (destroyed_at is not null))
);
create index subject_keys_subject_id_idx on subject_keys (tenant_id, subject_id);

create table key_versions (
    tenant_id uuid not null,
    kind text not null,
    version integer not null,
    state text not null,
    created_at timestamptz not null,
    state_at timestamptz not null,
    constraint key_versions_pkey primary key (tenant_id, kind, version),
    constraint key_versions_state_check check (state in ('adding', 'current', 'retiring'))
);
create unique index key_versions_current_idx on key_versions (tenant_id, kind) where state = 'current';
"""

# First the lock, then a statement of its own with a snapshot of its own: who gets the lock after a change
# sees the change. One `select ... for share` gives the rows from before its wait (docs/decisions/0002).
LIVE = """
create function live_key_versions(for_change boolean)
returns table (kind text, version integer, state text, state_at timestamptz)
language plpgsql volatile as $$
declare
    mine constant uuid := nullif(current_setting('app.tenant_id', true), '')::uuid;
    lock constant bigint := hashtextextended('key_versions ' || current_schema() || ' ' || mine, 0);
begin
    if for_change then
        perform pg_advisory_xact_lock(lock);
    else
        perform pg_advisory_xact_lock_shared(lock);
    end if;
    return query
        select k.kind, k.version, k.state, k.state_at from key_versions k
        where k.tenant_id = mine order by k.kind, k.version;
end
$$
"""


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute("set local statement_timeout = '60s'")
    app = op.get_bind().execute(text("select quote_ident(current_setting('regulars.app_role'))")).scalar_one()
    for statement in TABLES.split(";"):
        if statement.strip():
            op.execute(statement)
    mine = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
    for table in ("subject_keys", "key_versions"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"grant select, insert, update, delete on {table} to {app}")
        op.execute(f"create policy tenant on {table} to {app} using ({mine}) with check ({mine})")
    op.execute(LIVE)
    op.execute("revoke all on function live_key_versions(boolean) from public")
    op.execute(f"grant execute on function live_key_versions(boolean) to {app}")


def downgrade() -> None:
    op.execute("drop function live_key_versions(boolean)")
    op.execute("drop table subject_keys")
    op.execute("drop table key_versions")
