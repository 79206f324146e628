"""The tables of imports."""

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, LargeBinary, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID

from services.customers.tables import metadata


def _counts(*names: str) -> list[Column[object]]:
    return [Column(name, BigInteger, nullable=False) for name in names]


def _instants(*names: str, nullable: bool = False) -> list[Column[object]]:
    return [Column(f"{name}_at", DateTime(timezone=True), nullable=nullable) for name in names]


COUNTS = (
    "customers_created",
    "customers_updated",
    "customers_skipped",
    "orders_created",
    "orders_updated",
    "orders_skipped",
    "balances_created",
    "balances_skipped",
    "rows_refused",
)

# `sealed` is JSON under the import's own key: file_name, layout, columns (names), mapping.
# `last_row` is the checkpoint: the last row of the file that was dealt with.
imports = Table(
    "imports",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("import_id", UUID, primary_key=True),
    Column("business_id", UUID, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("key_id", UUID, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("file_id", UUID, nullable=False),
    Column("file_size", BigInteger, nullable=False),
    Column("file_digest", LargeBinary, nullable=False),
    *_instants("file_expires", nullable=True),
    Column("duplicates", SmallInteger, nullable=False),
    Column("match_by", SmallInteger, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("job_id", UUID),
    Column("rows_total", BigInteger),
    *_counts("rows_done", "last_row", *COUNTS, "conflicts"),
    *_instants("try_began", nullable=True),
    Column("try_began_rows", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
    *_instants("created", "updated"),
    *_instants("started", "finished", nullable=True),
    Column("undo_until", DateTime(timezone=True)),
)

# How files of a source with these columns were read the last time. `mapping` is a target for each column.
import_mappings = Table(
    "import_mappings",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("business_id", UUID, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("kind", SmallInteger, primary_key=True),
    Column("columns_digest", LargeBinary, primary_key=True),
    Column("layout", JSONB, nullable=False),
    Column("mapping", JSONB, nullable=False),
    Column("duplicates", SmallInteger, nullable=False),
    Column("match_by", SmallInteger, nullable=False),
    *_instants("updated"),
)

# What a row of the file wrote; versions are those after it. `customer_before` and `order_before` are what was there
# before, sealed under the person's own key.
import_rows = Table(
    "import_rows",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("import_id", UUID, primary_key=True),
    Column("row", BigInteger, primary_key=True),
    Column("customer_id", UUID),
    Column("customer_outcome", SmallInteger, nullable=False),
    Column("customer_version", BigInteger, nullable=False),
    Column("customer_before", LargeBinary),
    Column("order_id", UUID),
    Column("order_outcome", SmallInteger, nullable=False),
    Column("order_version", BigInteger, nullable=False),
    Column("order_before", LargeBinary),
)

# What is wrong with a row, never its value. `column_index` is -1 where the row as a whole is wrong.
import_errors = Table(
    "import_errors",
    metadata,
    Column("tenant_id", UUID, primary_key=True),
    Column("import_id", UUID, primary_key=True),
    Column("row", BigInteger, primary_key=True),
    Column("place", SmallInteger, primary_key=True),
    Column("column_index", Integer, nullable=False),
    Column("field", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("expected", Text, nullable=False),
    Column("customer_id", UUID),
    Column("order_id", UUID),
)
