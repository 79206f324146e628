"""Stamp cards: what each order put on a card, and how often a card was filled."""

from alembic import op

revision = "0004"
down_revision = "0003"

TENANT = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"
BUSINESS = """
    ((select current_setting('app.businesses', true)) = '*'
     or business_id = any (
         (select string_to_array(nullif(current_setting('app.businesses', true), ''), ','))::uuid[]))
"""

# Written under the lock of the account. `stamps` of a card is the sum of what its orders put on it; `filled` never
# falls, so that no card is given twice; `told` is the last milestone (percent) told of the card being filled.
TABLES = """
create table cards (
    tenant_id uuid not null,
    account_id uuid not null,
    rule_id uuid not null,
    business_id uuid not null,
    stamps bigint not null,
    filled bigint not null,
    told smallint not null,
    version bigint not null,
    constraint cards_pkey primary key (tenant_id, account_id, rule_id),
    constraint cards_account_fkey foreign key (tenant_id, account_id) references accounts,
    constraint cards_stamps_check check (stamps >= 0 and filled >= 0)
);

create table card_stamps (
    tenant_id uuid not null,
    order_id uuid not null,
    rule_id uuid not null,
    business_id uuid not null,
    account_id uuid not null,
    stamps bigint not null,
    constraint card_stamps_pkey primary key (tenant_id, order_id, rule_id),
    constraint card_stamps_card_fkey foreign key (tenant_id, account_id, rule_id) references cards
        deferrable initially deferred
);
create index card_stamps_card_idx on card_stamps (tenant_id, account_id, rule_id);
"""


def upgrade() -> None:
    op.execute(TABLES)
    for table in ("cards", "card_stamps"):
        op.execute(f"alter table {table} enable row level security")
        op.execute(f"create policy tenant_wall on {table} using ({TENANT}) with check ({TENANT})")
        op.execute(
            f"create policy business_wall on {table} as restrictive using ({BUSINESS}) with check ({BUSINESS})"
        )
