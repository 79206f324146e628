"""The business that rows are read for in these tests."""

from datetime import UTC, datetime
from uuid import UUID

from services.customers.businesses.rules import BOOLEAN, CHOICE, DATE, NUMBER, TEXT, AttributeDefinition
from services.customers.imports.rows import Facts

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ATTRIBUTES = {
    "size": AttributeDefinition("size", NUMBER, not_personal=True),
    "hobby": AttributeDefinition("hobby", TEXT),
    "member": AttributeDefinition("member", BOOLEAN),
    "since": AttributeDefinition("since", DATE),
    "roast": AttributeDefinition("roast", CHOICE, choices=("Light", "Dark"), not_personal=True),
}
FACTS = Facts(
    business_id=UUID("01939999-0000-7000-8000-000000000001"),
    currency="EUR",
    country="DE",
    time_zone="Europe/Berlin",
    attributes=ATTRIBUTES,
    content_key=b"k" * 32,
    now=NOW,
)
