"""Imports count the rows whose points were given to their members."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
        alter table imports
            add column balances_created bigint not null default 0,
            add column balances_skipped bigint not null default 0
    """)
