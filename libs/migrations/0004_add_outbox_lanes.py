"""Two lanes of events: what happens now goes before what comes in bulk.

Run in every service's schema. The default is for writers of the release before, which know of one lane.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("set local lock_timeout = '5s'")
    op.execute("set local statement_timeout = '60s'")
    op.execute("alter table outbox add column lane smallint not null default 0")
    op.execute("create index outbox_lane_id_idx on outbox (lane, id)")
    op.execute("drop index outbox_id_idx")


def downgrade() -> None:
    op.execute("create index outbox_id_idx on outbox (id)")
    op.execute("drop index outbox_lane_id_idx")
    op.execute("alter table outbox drop column lane")
