"""The tables of stamp cards; migration 0004 says what their columns mean."""

from sqlalchemy import BigInteger, Column, SmallInteger, Table
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

cards = Table(
    "cards",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("account_id", UUID, primary_key=True),
    Column("rule_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("stamps", BigInteger, nullable=False),
    Column("filled", BigInteger, nullable=False),
    Column("told", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
)

card_stamps = Table(
    "card_stamps",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("order_id", UUID, primary_key=True),
    Column("rule_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("account_id", UUID, nullable=False),
    Column("stamps", BigInteger, nullable=False),
)
