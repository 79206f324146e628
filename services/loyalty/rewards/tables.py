"""The tables of rewards, pools of codes and redemptions."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.loyalty.tables import metadata

code_pools = Table(
    "code_pools",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("pool_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
)

# `definition` is the message's JSON form with the names of the proto, less output fields and what has a column of its
# own.
rewards = Table(
    "rewards",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("reward_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("definition", JSONB, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("cost_points", BigInteger, nullable=False),
    Column("stock", BigInteger),
    Column("taken", BigInteger, nullable=False),
    Column("pool_id", UUID),
    Column("valid_from", DateTime(timezone=True)),
    Column("valid_until", DateTime(timezone=True)),
    Column("published_at", DateTime(timezone=True)),
    Column("version", BigInteger, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
    Column("deleted_at", DateTime(timezone=True)),
)

# `terms` is the definition of the reward when it was redeemed.
redemptions = Table(
    "redemptions",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("redemption_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("account_id", UUID, nullable=False),
    Column("reward_id", UUID, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("terms", JSONB, nullable=False),
    Column("points", BigInteger, nullable=False),
    Column("entry_id", UUID, nullable=False),
    Column("code_hash", LargeBinary, nullable=False),
    Column("key_id", UUID, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("issued_at", DateTime(timezone=True), nullable=False),
    Column("issued_by", Text, nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("closed_at", DateTime(timezone=True)),
    Column("closed_by", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("order_id", UUID),
    Column("version", BigInteger, nullable=False),
)

pool_codes = Table(
    "pool_codes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("code_id", UUID, primary_key=True),
    Column("pool_id", UUID, nullable=False),
    Column("business_id", UUID, nullable=False),
    Column("code_hash", LargeBinary, nullable=False),
    Column("key_id", UUID, nullable=False),
    Column("sealed", LargeBinary),
    Column("redemption_id", UUID),
)
