"""What was decided about an address."""

from alembic import op

revision = "0005"
down_revision = "0004"

# The defaults are for writers of the release before, who know of no verification.
CHANGES = """
alter table addresses
    add column verification smallint not null default 1,
    add column verification_at timestamptz,
    add column verification_sealed bytea,
    add constraint addresses_verification_check check (verification between 1 and 3);
update addresses set verification_at = updated_at;
alter table addresses
    alter column verification_at set not null,
    alter column verification_at set default now();
create index addresses_pending_idx on addresses (tenant_id, verification_at, address_id) where verification = 1;
"""


def upgrade() -> None:
    op.execute(CHANGES)
