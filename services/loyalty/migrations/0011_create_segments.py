"""Who is in which segment."""

from alembic import op

revision = "0011"
down_revision = "0010"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# A row stays when its customer leaves the segment: its version says which events are old.
TABLES = """
create table segment_members (
    tenant_id uuid not null,
    segment_id uuid not null,
    customer_id uuid not null,
    business_id uuid not null,
    inside boolean not null,
    version bigint not null,
    constraint segment_members_pkey primary key (tenant_id, segment_id, customer_id)
);
create index segment_members_customer_idx on segment_members (tenant_id, customer_id) where inside;
create index merges_target_idx on merges (tenant_id, target_id) where merged_at is not null and undone_at is null;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute("alter table segment_members enable row level security")
    op.execute(f"create policy tenant_wall on segment_members using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on segment_members as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
