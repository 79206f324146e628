"""What happened to points by day, folded from the ledger."""

from alembic import op

revision = "0007"
down_revision = "0006"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Entries that were booked before `folded_until` are in the days; a report adds the few that came since. So no writer
# of the ledger ever waits for another one's day. `change` is that of the outstanding points.
TABLES = """
create table report_days (
    tenant_id uuid not null,
    program_id uuid not null,
    day date not null,
    tier text not null,
    business_id uuid not null,
    issued bigint not null,
    redeemed bigint not null,
    expired bigint not null,
    reclaimed bigint not null,
    removed bigint not null,
    change bigint not null,
    constraint report_days_pkey primary key (tenant_id, program_id, day, tier)
);

create table report_marks (
    tenant_id uuid not null,
    folded_until timestamptz not null,
    constraint report_marks_pkey primary key (tenant_id)
);

create index entries_booked_idx on entries (tenant_id, booked_at);
create index tier_changes_time_idx on tier_changes (tenant_id, business_id, changed_at);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("report_days", "report_marks"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on report_days as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
