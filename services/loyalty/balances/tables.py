"""The table of opening balances; migration 0010 says what its columns mean."""

from sqlalchemy import BigInteger, Column, DateTime, Integer, LargeBinary, SmallInteger, Table
from sqlalchemy.dialects.postgresql import UUID

from services.loyalty.tables import metadata

imported_balances = Table(
    "imported_balances",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("import_id", UUID, primary_key=True),
    Column("row", BigInteger, primary_key=True),
    Column("outcome", SmallInteger, nullable=False),
    Column("account_id", UUID, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("place", Integer, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("lifetime_points", BigInteger, nullable=False),
    Column("entry_id", UUID),
    Column("lot_id", UUID),
    Column("taken", BigInteger, nullable=False),
    Column("spent", BigInteger, nullable=False),
    Column("lapsed", BigInteger, nullable=False),
    Column("undone_at", DateTime(timezone=True)),
)
