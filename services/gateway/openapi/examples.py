"""Made-up values for the document, each by the rules of its field."""

import re
from collections.abc import Mapping
from typing import Any

from services.gateway.openapi.keywords import Schema

ID = "01933b4a-7c1e-7d2f-9a35-6f0d2b8c4e17"
INSTANT = "2026-01-31T12:00:00Z"
_DEEPEST = 4
# By name, for texts whose rules alone do not tell what they are.
_TEXTS = {
    "firstName": "Ada",
    "lastName": "Lovelace",
    "fullName": "Ada Lovelace",
    "displayName": "Ada Lovelace",
    "name": "Corner Shop",
    "email": "ada@example.com",
    "phone": "+4930123456",
    "bornOn": "1990-12-10",
    "currency": "USD",
    "country": "DE",
    "language": "en",
    "timeZone": "Europe/Berlin",
    "city": "Berlin",
    "postalCode": "10115",
    "tag": "regular",
    "etag": "7f3a9c",
    "slug": "corner-shop",
}
_FORMATS = {"uuid": ID, "date-time": INSTANT, "email": "ada@example.com", "int64": "1250"}


def example_of(
    schema: Schema, components: Mapping[str, Schema], name: str = "", *, writing: bool = False, depth: int = 0
) -> Any:
    """A value of the schema, None if none can be made up. `writing`: without what only the service sets."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]] | {
            key: value for key, value in schema.items() if key != "$ref"
        }
    kind = schema.get("type")
    if "enum" in schema:
        return schema["enum"][0]
    if kind == "object":
        return _object(schema, components, writing, depth)
    if kind == "array":
        element = example_of(schema["items"], components, _singular(name), writing=writing, depth=depth + 1)
        return None if element is None or depth > _DEEPEST else [element]
    if kind == "boolean":
        return True
    if kind in {"integer", "number"}:
        return min(max(1, schema.get("minimum", 1)), schema.get("maximum", 1 << 31))
    return _text(schema, name) if kind == "string" else None


def _object(schema: Schema, components: Mapping[str, Schema], writing: bool, depth: int) -> Any:
    if depth > _DEEPEST:
        return None
    made = {}
    for key, inner in schema.get("properties", {}).items():
        if writing and inner.get("readOnly"):
            continue
        value = example_of(inner, components, key, writing=writing, depth=depth + 1)
        if value is not None and "Excludes" not in inner.get("description", ""):
            made[key] = value
    return made or None


def _singular(name: str) -> str:
    return name[:-1] if name.endswith("s") else name


def _text(schema: Schema, name: str) -> str | None:
    found = _FORMATS.get(schema.get("format", ""))
    if found is None and (name == "id" or name.endswith("Id")):
        found = ID
    if found is None:
        found = _TEXTS.get(name, "text")
    pattern = schema.get("pattern")
    fits = pattern is None or re.search(pattern, found) is not None
    return found if fits and len(found) <= schema.get("maxLength", 1 << 20) else None
