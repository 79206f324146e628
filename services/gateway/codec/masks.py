"""Field masks: from the text of a client, and from what an update's body holds."""

import re
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask

from services.gateway.codec import wellknown
from services.gateway.codec.faults import Wrong
from services.gateway.codec.names import (
    STRUCT,
    fields_by_any_name,
    hint,
    is_list,
    is_map,
    message_of,
    proto_path,
    shown,
    type_name,
)

Test = Callable[[FieldDescriptor], bool]
_UPPER = re.compile(r"(?<=[a-z0-9])[A-Z]")


def mask_reader(target: Descriptor | None) -> Callable[[Any], FieldMask]:
    """The reader of a mask as comma-separated JSON names; with a target every path names a field of it."""

    def read(value: Any) -> FieldMask:
        if type(value) is not str:
            raise Wrong("A string of comma-separated field names is expected.")
        paths = [path.strip() for path in value.split(",")] if value else []
        return FieldMask(paths=[path if path == "*" else _path(target, path) for path in paths])

    return read


def _path(target: Descriptor | None, path: str) -> str:
    if target is None:
        return _snake(path)
    found = proto_path(target, path)
    if found is None:
        near = hint(path, (field.json_name for field in target.fields))
        raise Wrong(f'There is no field "{shown(path)}".{near}', "UNKNOWN_FIELD")
    return found


def _snake(name: str) -> str:
    return _UPPER.sub(lambda found: "_" + found.group().lower(), name)


def order_reader(target: Descriptor | None) -> Callable[[Any], str]:
    """The reader of `order_by` ("createdAt desc"): JSON names become proto names, the rest stays."""

    def read(value: Any) -> str:
        if type(value) is not str:
            raise Wrong("A string is expected.")
        terms = [term.strip().split(" ", 1) for term in value.split(",")]
        for term in terms:
            known = proto_path(target, term[0]) if target is not None else None
            term[0] = known or _snake(term[0])
        return ", ".join(" ".join(term) for term in terms)

    return read


def resource_of(output: Descriptor) -> Descriptor:
    """The message that a read mask selects from: of a page its elements, else the answer itself."""
    lists = [field for field in output.fields if is_list(field) and field.message_type is not None]
    return message_of(lists[0]) if len(lists) == 1 and "id" not in output.fields_by_name else output


def present(value: dict[str, Any], message: Any, skip: Test) -> list[str]:
    """The paths that an update's body names, in proto names; null names its field too.

    As in RFC 7396, objects are entered and entries of maps named one by one; null entries are taken out of
    `message`, which was decoded from the same body. Fields that `skip` holds for are left out.
    """
    paths: list[str] = []
    fields = fields_by_any_name(message.DESCRIPTOR)
    for key, given in value.items():
        field = fields.get(key)
        if field is None or skip(field):
            continue
        if not isinstance(given, dict) or field.message_type is None or is_list(field):
            paths.append(field.name)
        elif is_map(field):
            paths.extend(f"{field.name}.{name}" for name in given)
        elif type_name(field) == STRUCT:
            entries = getattr(message, field.name).fields
            for name, entry in given.items():
                paths.append(f"{field.name}.{name}")
                if entry is None:
                    entries.pop(name)
        elif type_name(field).startswith(wellknown.PACKAGE):
            paths.append(field.name)
        else:
            inner = present(given, getattr(message, field.name), skip)
            paths.extend(f"{field.name}.{path}" for path in inner)
    return paths
