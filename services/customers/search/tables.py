"""The table that searches look through."""

from sqlalchemy import Column, Integer, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.customers.tables import metadata

# One row for each live customer and live version of the search key. `businesses` are those of live memberships,
# `country` is the
# default address's; `city` is the token of its city.
customer_search = Table(
    "customer_search",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("customer_id", UUID, primary_key=True),
    Column("key_version", Integer, primary_key=True),
    Column("tokens", ARRAY(Integer), nullable=False),
    Column("businesses", ARRAY(UUID), nullable=False),
    Column("country", Text),
    Column("city", Integer),
)
