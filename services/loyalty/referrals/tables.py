"""The tables of referrals; migration 0009 says what their columns mean."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.loyalty.tables import metadata

referral_codes = Table(
    "referral_codes",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("code", Text, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("customer_id", UUID, nullable=False),
    Column("made_at", DateTime(timezone=True), nullable=False),
)

referrals = Table(
    "referrals",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("referral_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("program_id", UUID, nullable=False),
    Column("referrer_id", UUID),
    Column("friend_id", UUID),
    Column("code", Text),
    Column("state", SmallInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("matches", ARRAY(SmallInteger), nullable=False),
    Column("approved", Boolean, nullable=False),
    Column("referrer_points", BigInteger, nullable=False),
    Column("friend_points", BigInteger, nullable=False),
    Column("minimum_order_minor", BigInteger, nullable=False),
    Column("order_id", UUID),
    Column("created_at", DateTime(timezone=True), nullable=False),
    *(
        Column(f"{name}_at", DateTime(timezone=True))
        for name in ("registered", "qualified", "rewarded", "expires", "due")
    ),
    Column("reviewed_by", Text, nullable=False),
    Column("referrer_entry_id", UUID),
    Column("friend_entry_id", UUID),
    Column("version", BigInteger, nullable=False),
)
