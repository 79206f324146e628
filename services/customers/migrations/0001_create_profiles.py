"""Tenants, businesses, customers and what hangs on them."""

from alembic import op

revision = "0001"
down_revision = None

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

TABLES = """
create table accounts (
    tenant_id uuid not null,
    slug text not null,
    display_name text not null,
    created_at timestamptz not null,
    constraint accounts_pkey primary key (tenant_id),
    constraint accounts_slug_key unique (slug)
);

create table businesses (
    tenant_id uuid not null,
    business_id uuid not null,
    name text not null,
    currency text not null,
    time_zone text not null,
    language text not null,
    country text not null,
    order_completion smallint not null,
    erasure_cool_off_days smallint not null,
    version bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    archived_at timestamptz,
    constraint businesses_pkey primary key (tenant_id, business_id),
    constraint businesses_cool_off_check check (erasure_cool_off_days between 0 and 29)
);

create table attribute_definitions (
    tenant_id uuid not null,
    business_id uuid not null,
    name text not null,
    type smallint not null,
    label text not null,
    choices text[] not null,
    not_personal boolean not null,
    created_at timestamptz not null,
    archived_at timestamptz,
    constraint attribute_definitions_pkey primary key (tenant_id, business_id, name),
    constraint attribute_definitions_business_fkey
        foreign key (tenant_id, business_id) references businesses
);

create table customers (
    tenant_id uuid not null,
    customer_id uuid not null,
    key_id uuid not null,
    version bigint not null,
    profile bytea not null,
    email_verified boolean not null,
    phone_verified boolean not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    erasing_at timestamptz,
    merged_into uuid,
    constraint customers_pkey primary key (tenant_id, customer_id)
);

create table customer_identifiers (
    tenant_id uuid not null,
    kind text not null,
    key_version integer not null,
    bidx bytea not null,
    customer_id uuid not null,
    constraint customer_identifiers_pkey primary key (tenant_id, kind, key_version, bidx),
    constraint customer_identifiers_customer_fkey
        foreign key (tenant_id, customer_id) references customers
);
create index customer_identifiers_customer_idx on customer_identifiers (tenant_id, customer_id);

create table memberships (
    tenant_id uuid not null,
    business_id uuid not null,
    customer_id uuid not null,
    status smallint not null,
    type smallint not null,
    tags text[] not null,
    attributes jsonb not null,
    sealed bytea,
    source text not null,
    joined_at timestamptz not null,
    last_active_at timestamptz,
    deleted_at timestamptz,
    deletion_mode smallint,
    erase_due_at timestamptz,
    constraint memberships_deletion_check check ((deleted_at is null) = (deletion_mode is null)),
    constraint memberships_erasure_check check (erase_due_at is null or deleted_at is not null),
    constraint memberships_pkey primary key (tenant_id, business_id, customer_id),
    constraint memberships_customer_fkey foreign key (tenant_id, customer_id) references customers,
    constraint memberships_business_fkey foreign key (tenant_id, business_id) references businesses
);
create index memberships_customer_idx on memberships (tenant_id, customer_id);

create table addresses (
    tenant_id uuid not null,
    customer_id uuid not null,
    address_id uuid not null,
    key_id uuid not null,
    type smallint not null,
    is_default boolean not null,
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint addresses_pkey primary key (tenant_id, customer_id, address_id),
    constraint addresses_customer_fkey foreign key (tenant_id, customer_id) references customers
);
create unique index addresses_default_key on addresses (tenant_id, customer_id) where is_default;

create table notes (
    tenant_id uuid not null,
    customer_id uuid not null,
    note_id uuid not null,
    business_id uuid not null,
    kind smallint not null,
    revision integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint notes_pkey primary key (tenant_id, customer_id, note_id),
    constraint notes_membership_fkey
        foreign key (tenant_id, business_id, customer_id) references memberships on delete cascade
);
create index notes_membership_idx on notes (tenant_id, business_id, customer_id, note_id desc);

create table note_revisions (
    tenant_id uuid not null,
    customer_id uuid not null,
    note_id uuid not null,
    revision integer not null,
    key_id uuid not null,
    sealed bytea not null,
    written_at timestamptz not null,
    constraint note_revisions_pkey primary key (tenant_id, customer_id, note_id, revision),
    constraint note_revisions_note_fkey
        foreign key (tenant_id, customer_id, note_id) references notes on delete cascade
);
"""

BY_BUSINESS = ["businesses", "attribute_definitions", "memberships", "notes"]
WALLED = [*BY_BUSINESS, "customers", "customer_identifiers", "addresses", "note_revisions"]


def upgrade() -> None:
    op.execute(TABLES)
    for table in WALLED:
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
    for table in BY_BUSINESS:
        op.execute(
            f"create policy business_wall on {table} as restrictive"
            f" using ({BUSINESS}) with check ({BUSINESS})"
        )
    op.execute("alter table customers set (fillfactor = 90)")
    op.execute("alter table memberships set (fillfactor = 90)")
