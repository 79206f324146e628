"""protovalidate's rules as JSON Schema keywords, as far as JSON Schema has words for them."""

from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor

Schema = dict[str, Any]
_FORMATS = {
    "email": "email",
    "uuid": "uuid",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
}
_NUMBERS = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
_LENGTHS = {"min_len": "minLength", "max_len": "maxLength"}
_NUMERIC = {"float", "double", "int32", "int64", "uint32", "uint64", "sint32", "sint64"} | {
    *("fixed32", "fixed64", "sfixed32", "sfixed64")
}


def rules_of(field: FieldDescriptor) -> Any:
    """The field's buf.validate.FieldRules; empty if it has none."""
    return field.GetOptions().Extensions[validate_pb2.field]


def keywords(rules: Any, *, textual: bool = False) -> Schema:
    """The keywords for one value. `textual`: the number is text in JSON, so its range is told in words."""
    kind = rules.WhichOneof("type")
    if kind is None:
        return {}
    inner = getattr(rules, kind)
    if kind == "string":
        return _text(inner)
    if kind in _NUMERIC:
        found = {word: getattr(inner, name) for name, word in _NUMBERS.items() if inner.HasField(name)}
        if not textual:
            return found
        signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        told = ", ".join(f"{signs[word]} {number}" for word, number in found.items())
        return {"x-range": told} if told else {}
    if kind == "repeated":
        return _numbered(inner, {"min_items": "minItems", "max_items": "maxItems"}) | (
            {"uniqueItems": True} if inner.unique else {}
        )
    if kind == "map":
        return _numbered(inner, {"min_pairs": "minProperties", "max_pairs": "maxProperties"})
    return {}


def _text(rules: Any) -> Schema:
    found = _numbered(rules, _LENGTHS)
    if rules.HasField("len"):
        found |= {"minLength": rules.len, "maxLength": rules.len}
    if rules.HasField("pattern"):
        found["pattern"] = rules.pattern
    if rules.HasField("const"):
        found["const"] = rules.const
    choices = [value for value in getattr(rules, "in") if value]
    if choices:
        found["enum"] = choices
    known = rules.WhichOneof("well_known")
    if known in _FORMATS and getattr(rules, known):
        found["format"] = _FORMATS[known]
    return found


def _numbered(rules: Any, words: dict[str, str]) -> Schema:
    return {word: getattr(rules, name) for name, word in words.items() if rules.HasField(name)}


def is_required(field: FieldDescriptor) -> bool:
    """True if a request without the field is refused: by its rule, or because empty breaks a rule."""
    rules = rules_of(field)
    if rules.required:
        return True
    if field.has_presence or rules.ignore != validate_pb2.IGNORE_UNSPECIFIED:
        return False
    words = keywords(rules)
    if {"format", "const", "enum"} & words.keys():
        return bool("" not in getattr(rules.string, "in"))
    return any(words.get(word, 0) >= 1 for word in ("minLength", "minItems", "minProperties"))
