"""Memberships, one per customer and business."""

from alembic import op

revision = "0001"
down_revision = None

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""


def upgrade() -> None:
    op.execute("""
        create table memberships (
            tenant_id uuid not null,
            business_id uuid not null,
            customer_id uuid not null,
            joined_at timestamptz,
            blocked boolean not null default false,
            standing_version bigint not null default 0,
            present boolean not null default true,
            deleted boolean not null default false,
            presence_version bigint not null default 0,
            constraint memberships_pkey primary key (tenant_id, business_id, customer_id)
        )
    """)
    op.execute("alter table memberships enable row level security")
    op.execute(f"create policy tenant_wall on memberships using ({TENANT}) with check ({TENANT})")
    op.execute(
        f"create policy business_wall on memberships as restrictive using ({BUSINESS}) with check ({BUSINESS})"
    )
