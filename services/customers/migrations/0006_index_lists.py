"""Lists in the order of total spent and of the last order walk an index."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    for column in ("total_spent_minor", "last_order_at"):
        op.execute(
            f"create index customer_metrics_{column}_idx on customer_metrics"
            f" (tenant_id, business_id, {column}, customer_id)"
        )
