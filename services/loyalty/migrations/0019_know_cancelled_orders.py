"""An order that was cancelled before it was completed is known too: what was spent on it came back."""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute("alter table orders alter column completed_at drop not null")
