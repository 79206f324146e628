"""The tables of exports."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY, UUID

from services.customers.tables import metadata


def _instant(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


# `sealed` is the search's JSON form under a key of the export's own; `masks` are those of who asked. `outcome` is an
# ExportState, or null until there is one.
exports = Table(
    "exports",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("export_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("format", SmallInteger, nullable=False),
    Column("columns", ARRAY(Text), nullable=False),
    Column("masks", ARRAY(Text), nullable=False),
    Column("masked_columns", ARRAY(Text), nullable=False),
    Column("key_id", UUID, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("filter_digest", LargeBinary, nullable=False),
    Column("outcome", SmallInteger),
    Column("customers", BigInteger, nullable=False),
    Column("customers_total", BigInteger),
    Column("size", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    _instant("created_at"),
    _instant("finished_at", nullable=True),
    _instant("expires_at", nullable=True),
    Column("downloads", Integer, nullable=False),
    _instant("last_downloaded_at", nullable=True),
)

# The pieces of an export's file in their order, each a sealed file.
export_files = Table(
    "export_files",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("export_id", UUID, primary_key=True),
    Column("piece", Integer, primary_key=True),
    Column("file_id", UUID, nullable=False),
    Column("size", BigInteger, nullable=False),
)
