"""The table of people's facts."""

from sqlalchemy import BigInteger, Boolean, Column, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

# As of a version of the customer; `wanted`: there is a newer one that could not be asked for. Of the erased only the
# row stays, with a version that nothing is newer than.
people = Table(
    "people",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("birth_month", SmallInteger),
    Column("birth_day", SmallInteger),
    Column("time_zone", Text, nullable=False),
    Column("profile_complete", Boolean, nullable=False),
    Column("wanted", Boolean, nullable=False),
)
