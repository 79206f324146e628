"""Lists in the order of the average order and of the number of orders walk an index, too."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for column in ("average_order_minor", "orders_completed"):
        op.execute(
            f"create index customer_metrics_{column}_idx on customer_metrics"
            f" (tenant_id, business_id, {column}, customer_id)"
        )
