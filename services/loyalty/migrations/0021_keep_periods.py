"""Where points lapse at the end of a period, no months mean that very period; until now they meant twelve."""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute("""
        update programs set settings = settings || '{"expiry_months": 12}'
        where settings ->> 'expiry' like '%END_OF_%' and coalesce(settings ->> 'expiry_months', '0') = '0'
    """)
