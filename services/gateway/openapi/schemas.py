"""Messages and enums as JSON Schemas."""

import re
from collections.abc import Mapping

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from services.gateway.codec import wellknown
from services.gateway.codec.names import enum_names, is_list, is_map, message_of, type_name
from services.gateway.codec.scalars import SIGNED_64, UNSIGNED_64, range_of
from services.gateway.openapi.keywords import Schema, is_required, keywords, rules_of

_F = FieldDescriptor
_SNAKE = re.compile(r"`([a-z][a-z0-9]*(?:_[a-z0-9]+)+)`")
_PACKAGE = wellknown.PACKAGE
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,20}$"}
_ANY_JSON: dict[str, Schema] = {
    _PACKAGE + "Struct": {"type": "object", "additionalProperties": True},
    _PACKAGE + "Value": {"description": "Any JSON value."},
    _PACKAGE + "ListValue": {"type": "array", "items": {}},
    _PACKAGE + "Empty": {"type": "object"},
    wellknown.TIMESTAMP: {"type": "string", "format": "date-time"},
    wellknown.DURATION: {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    wellknown.FIELD_MASK: {"type": "string", "description": "Field names, separated by commas."},
}


def camel(text: str) -> str:
    """A comment with the names in backticks as JSON has them."""
    return _SNAKE.sub(lambda found: "`" + re.sub(r"_(.)", lambda step: step[1].upper(), found[1]) + "`", text)


class Schemas:
    """Collects the schemas of every message that an operation names."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._names: dict[Descriptor | EnumDescriptor, str] = {}
        self.components: dict[str, Schema] = {}

    def comment(self, full_name: str) -> str:
        """What the proto says of an element."""
        return camel(self._comments.get(full_name, "").strip())

    def is_output_only(self, field: FieldDescriptor) -> bool:
        """True if only the service sets the field."""
        return "Output only" in " ".join(self.comment(field.full_name).split())

    def of_message(self, message: Descriptor) -> Schema:
        """A reference to a message's schema, or the schema itself of a well-known type."""
        if message.full_name in _ANY_JSON:
            return dict(_ANY_JSON[message.full_name])
        if message.full_name in wellknown.WRAPPERS:
            return self._scalar(message.fields_by_name["value"])
        name = self._names.get(message)
        if name is None:
            name = self._name(message)
            self.components[name] = {}
            self.components[name].update(self._object(message))
        return {"$ref": f"#/components/schemas/{name}"}

    def _name(self, element: Descriptor | EnumDescriptor) -> str:
        """The element's own name; with its service's in front if that is taken."""
        package = element.file.package
        name = element.full_name.removeprefix(package + ".")
        if name in self.components:
            name = f"{package.split('.')[-2]}.{name}"
        self._names[element] = name
        return name

    def _object(self, message: Descriptor) -> Schema:
        properties = {field.json_name: self.of_field(field) for field in message.fields}
        required = [field.json_name for field in message.fields if is_required(field)]
        schema: Schema = {"type": "object", "properties": properties}
        if required:
            schema["required"] = required
        described = self.comment(message.full_name)
        return {"description": described, **schema} if described else schema

    def without(self, message: Descriptor, names: set[str]) -> Schema:
        """A message's schema without some of its fields (proto names), written out."""
        schema = self._object(message)
        left_out = {
            message.fields_by_name[name].json_name for name in names if name in message.fields_by_name
        }
        schema["properties"] = {
            name: value for name, value in schema["properties"].items() if name not in left_out
        }
        required = [name for name in schema.pop("required", []) if name not in left_out]
        return schema | ({"required": required} if required else {})

    def of_field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field's value, with its rules and its comment."""
        rules = rules_of(field)
        if is_map(field):
            value = message_of(field).fields_by_name["value"]
            inner = self._single(value) | keywords(rules.map.values)
            schema: Schema = {"type": "object", "additionalProperties": inner} | keywords(rules)
        elif is_list(field):
            inner = self._single(field) | keywords(rules.repeated.items)
            schema = {"type": "array", "items": inner} | keywords(rules)
        else:
            schema = self._single(field)
            textual = schema.get("format") == "int64"
            schema |= keywords(rules, textual=textual)
        told = schema.pop("x-range", "")
        described = " ".join(filter(None, [self.comment(field.full_name), told and f"({told})"]))
        if described:
            schema["description"] = described
        if self.is_output_only(field):
            schema["readOnly"] = True
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            others = ", ".join(f"`{other.json_name}`" for other in oneof.fields if other.name != field.name)
            schema["description"] = f"{schema.get('description', '')} Excludes {others}.".strip()
        return schema

    def _single(self, field: FieldDescriptor) -> Schema:
        return self._scalar(field) if field.message_type is None else self.of_message(field.message_type)

    def _scalar(self, field: FieldDescriptor) -> Schema:
        kind = field.type
        if kind == _F.TYPE_ENUM:
            return self._enum(field)
        if kind in SIGNED_64 or kind in UNSIGNED_64:
            return dict(_INT64)
        bounds = range_of(field)
        if bounds is not None:
            low, high = bounds
            return {"type": "integer", "format": "int32", "minimum": low, "maximum": high}
        if kind in {_F.TYPE_DOUBLE, _F.TYPE_FLOAT}:
            return {"type": "number", "format": "double" if kind == _F.TYPE_DOUBLE else "float"}
        if kind == _F.TYPE_BOOL:
            return {"type": "boolean"}
        if kind == _F.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return {"type": "string"}

    def _enum(self, field: FieldDescriptor) -> Schema:
        enum = field.enum_type
        assert enum is not None
        if type_name(field) == _PACKAGE + "NullValue":
            return {"type": "null"}
        name = self._names.get(enum)
        if name is None:
            name = self._name(enum)
            names = enum_names(enum)
            lines = [
                f"- `{names.out[value.number]}`: {self.comment(f'{enum.full_name}.{value.name}')}"
                for value in enum.values
                if value.number or not names.absent
            ]
            described = "\n".join([self.comment(enum.full_name), "", *lines]).strip()
            self.components[name] = {"type": "string", "enum": list(names.shown), "description": described}
        return {"$ref": f"#/components/schemas/{name}"}
