"""Points that members bring along from other programs: which rows gave what, and lifetime points of entries."""

from alembic import op

revision = "0010"
down_revision = "0009"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# A row of an import that was not refused. `content` is the print of what it said, `place` its number among the rows of
# its import that said the same: the next file of the source says nothing new with it. `outcome` 2: an earlier import
# had given just this, and nothing was given. What was taken back of it: `taken`; `spent` and `lapsed` stay.
TABLES = """
create table imported_balances (
    tenant_id uuid not null,
    business_id uuid not null,
    import_id uuid not null,
    row bigint not null,
    outcome smallint not null,
    account_id uuid not null,
    content bytea not null,
    place integer not null,
    points bigint not null,
    lifetime_points bigint not null,
    entry_id uuid,
    lot_id uuid,
    taken bigint not null,
    spent bigint not null,
    lapsed bigint not null,
    undone_at timestamptz,
    constraint imported_balances_pkey primary key (tenant_id, business_id, import_id, row),
    constraint imported_balances_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint imported_balances_outcome_check check ((outcome = 1) = (entry_id is not null))
);
create unique index imported_balances_content_idx on imported_balances (tenant_id, business_id, content, place)
    where outcome = 1 and undone_at is null;
create index imported_balances_account_idx on imported_balances (tenant_id, account_id);
create index imported_balances_said_idx on imported_balances (tenant_id, business_id, import_id, content);

-- What an entry adds to the lifetime points beyond those that it gives.
alter table entries add column lifetime_points bigint not null default 0;
create index entries_counted_idx on entries (tenant_id, account_id, effective_at)
    where kind = 1 or (kind = 5 and reverses_id is null) or lifetime_points <> 0;
drop index entries_effective_idx;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute("alter table imported_balances enable row level security")
    op.execute(f"create policy tenant_wall on imported_balances using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on imported_balances as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
