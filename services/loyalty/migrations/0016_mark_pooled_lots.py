"""Lots of points that others in a household gave for a purchase, and that go back to them unless they are spent."""

from alembic import op

revision = "0016"
down_revision = "0015"

CHANGES = """
alter table lots add column pooled boolean not null default false;
create index lots_pooled_idx on lots (tenant_id, account_id) where pooled and remaining > 0;
"""


def upgrade() -> None:
    op.execute(CHANGES)
