"""A lot with nothing left is not pending: its day would come again and again."""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute("update lots set pending = false where pending and remaining = 0")
