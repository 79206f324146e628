"""Accounts change again and again: room in their pages spares their indexes."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute("alter table accounts set (fillfactor = 80)")
