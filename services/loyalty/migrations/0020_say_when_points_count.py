"""Points of an order count for tiers with what was spent on it, whenever they were booked."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    # Absent: when it took effect, as all that was booked before this.
    op.execute("alter table entries add column counted_at timestamptz")
