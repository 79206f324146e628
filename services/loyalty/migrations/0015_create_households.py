"""Households: who shares points with whom, and codes by which one comes in."""

from alembic import op

revision = "0015"
down_revision = "0014"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Whoever changes who is in a household holds its row. `sealed`: why staff took a member in, under the member's key.
# Rows of members and invitations are gone when they leave; events tell what was.
TABLES = """
create table households (
    tenant_id uuid not null,
    household_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    created_at timestamptz not null,
    closed_at timestamptz,
    version bigint not null,
    constraint households_pkey primary key (tenant_id, household_id),
    constraint households_program_fkey foreign key (tenant_id, program_id) references programs
);
create index households_program_idx on households (tenant_id, program_id);

create table household_members (
    tenant_id uuid not null,
    household_id uuid not null,
    customer_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    joined_at timestamptz not null,
    added_by text not null,
    key_id uuid,
    sealed bytea,
    constraint household_members_pkey primary key (tenant_id, household_id, customer_id),
    constraint household_members_one_key unique (tenant_id, program_id, customer_id),
    constraint household_members_household_fkey foreign key (tenant_id, household_id) references households
);
create index household_members_customer_idx on household_members (tenant_id, customer_id);

create table household_invitations (
    tenant_id uuid not null,
    invitation_id uuid not null,
    household_id uuid not null,
    business_id uuid not null,
    program_id uuid not null,
    code text not null,
    invited_by uuid not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    constraint household_invitations_pkey primary key (tenant_id, invitation_id),
    constraint household_invitations_code_key unique (tenant_id, code),
    constraint household_invitations_household_fkey foreign key (tenant_id, household_id) references households
);
create index household_invitations_household_idx on household_invitations (tenant_id, household_id);
create index household_invitations_inviter_idx on household_invitations (tenant_id, invited_by);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("households", "household_members", "household_invitations"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
