"""JSON values to messages: one reader per descriptor, compiled at its first use; every fault is named."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from services.gateway.codec import wellknown
from services.gateway.codec.faults import Faults, Wrong
from services.gateway.codec.masks import mask_reader
from services.gateway.codec.names import STRUCT, fields_by_any_name, is_list, is_map, message_of, type_name
from services.gateway.codec.scalars import Reader, reader_of
from services.gateway.codec.structs import MAX_DEPTH, fill_list, fill_struct, fill_value, is_object

# Sets one field from a JSON value. The arguments: message, value, JSON path, faults, depth.
Setter = Callable[[Any, Any, str, Faults, int], None]
_F = FieldDescriptor


class Decoder:
    """Fills messages of one type from JSON objects."""

    __slots__ = ("_fields", "_known", "_oneofs")

    def __init__(self) -> None:
        self._fields: dict[str, tuple[str, Setter]] = {}
        self._known: tuple[str, ...] = ()
        self._oneofs: dict[str, tuple[str, str]] = {}

    def compile(self, message: Descriptor, readers: Mapping[str, Reader] | None = None) -> None:
        """Makes the setters; apart from the constructor, because a message may contain itself.

        `readers` replace those of the fields that they are named after.
        """
        setters = {field.name: setter_of(field, (readers or {}).get(field.name)) for field in message.fields}
        self._fields = {
            name: (field.name, setters[field.name]) for name, field in fields_by_any_name(message).items()
        }
        self._known = tuple(field.json_name for field in message.fields)
        self._oneofs = {
            field.name: (field.containing_oneof.name, field.json_name)
            for field in message.fields
            if field.containing_oneof is not None and len(field.containing_oneof.fields) > 1
        }

    def fill(self, message: Any, value: Any, path: str, faults: Faults, depth: int = 0) -> None:
        """Sets every field of `message` that the object has; null leaves its field unset."""
        if type(value) is not dict and not is_object(value, path, faults):
            return
        if depth > MAX_DEPTH:
            faults.add(path, f"Nested more than {MAX_DEPTH} deep.", "TOO_DEEP")
            return
        fields = self._fields
        seen: set[str] = set()
        prefix = path + "." if path else ""
        for key, given in value.items():
            found = fields.get(key)
            if found is None:
                faults.unknown(prefix + key, key, self._known)
                continue
            name, put = found
            if name in seen:
                faults.add(prefix + key, "The field is given twice, by both of its names.", "DUPLICATE_FIELD")
                continue
            seen.add(name)
            put(message, given, prefix + key, faults, depth)
        if self._oneofs:
            self._check_oneofs(value, prefix, faults)

    def _check_oneofs(self, value: dict[str, Any], prefix: str, faults: Faults) -> None:
        chosen: dict[str, str] = {}
        for key, given in value.items():
            found = self._fields.get(key)
            if found is None or given is None or found[0] not in self._oneofs:
                continue
            oneof, shown = self._oneofs[found[0]]
            first = chosen.setdefault(oneof, shown)
            if first != shown:
                faults.add(
                    prefix + shown, f'Only one of "{first}" and "{shown}" may be given.', "ONEOF_CONFLICT"
                )


_made: dict[Descriptor, Decoder] = {}


def decoder_of(message: Descriptor) -> Decoder:
    """The decoder of a message type. Raises TypeError for types without a JSON form here."""
    known = _made.get(message)
    if known is None:
        if message.full_name == "google.protobuf.Any":
            raise TypeError("google.protobuf.Any has no JSON form here")
        known = _made[message] = Decoder()
        known.compile(message)
    return known


@cache
def value_reader(field: FieldDescriptor) -> Reader | None:
    """The reader of a value that is one JSON scalar, or of one element; None for objects and arrays."""
    message = field.message_type
    if message is None:
        return reader_of(field)
    if message.full_name in wellknown.READERS:
        return wellknown.READERS[message.full_name]
    if message.full_name == wellknown.FIELD_MASK:
        return mask_reader(None)
    if message.full_name in wellknown.WRAPPERS:
        read = reader_of(message.fields_by_name["value"])
        make = GetMessageClass(message)
        return lambda value: make(value=read(value))
    return None


def setter_of(field: FieldDescriptor, read: Reader | None = None) -> Setter:
    """The setter of a field; `read` replaces its own reader."""
    if is_map(field):
        return _map_setter(field)
    if is_list(field):
        return _list_setter(field)
    read = read or value_reader(field)
    if read is not None:
        return scalar_setter(field, read)
    fill, name = _filler(field), field.name
    takes_null = type_name(field) == wellknown.VALUE

    def put(message: Any, value: Any, path: str, faults: Faults, depth: int) -> None:
        if value is None and not takes_null:
            return
        inner = getattr(message, name)
        inner.SetInParent()
        fill(inner, value, path, faults, depth + 1)

    return put


def scalar_setter(field: FieldDescriptor, read: Reader) -> Setter:
    """The setter of a field whose value is one JSON scalar; null leaves it unset."""
    name = field.name
    if field.message_type is not None:

        def put_message(message: Any, value: Any, path: str, faults: Faults, _: int) -> None:
            if value is None:
                return
            try:
                getattr(message, name).CopyFrom(read(value))
            except Wrong as wrong:
                faults.wrong(path, wrong)

        return put_message
    takes_null = type_name(field) == "google.protobuf.NullValue"

    def put(message: Any, value: Any, path: str, faults: Faults, _: int) -> None:
        if value is None and not takes_null:
            return
        try:
            setattr(message, name, read(value))
        except Wrong as wrong:
            faults.wrong(path, wrong)

    return put


def _filler(field: FieldDescriptor) -> Setter:
    """Fills a message that is there already."""
    name = type_name(field)
    if name == STRUCT:
        return fill_struct
    if name == wellknown.VALUE:
        return fill_value
    if name == wellknown.LIST_VALUE:
        return fill_list
    return decoder_of(message_of(field)).fill


def _list_setter(field: FieldDescriptor) -> Setter:
    name = field.name
    read = value_reader(field)
    fill = None if read is not None else _filler(field)
    takes_null = type_name(field) == wellknown.VALUE

    def put(message: Any, value: Any, path: str, faults: Faults, depth: int) -> None:
        if value is None:
            return
        if type(value) is not list:
            faults.add(path, "An array is expected.", "WRONG_TYPE")
            return
        elements = getattr(message, name)
        for i, element in enumerate(value):
            place = f"{path}[{i}]"
            if element is None and not takes_null:
                faults.add(place, "An array may not contain null.", "WRONG_TYPE")
            elif fill is not None:
                fill(elements.add(), element, place, faults, depth + 1)
            else:
                try:
                    elements.append(read(element))  # type: ignore[misc]  # one of both is there
                except Wrong as wrong:
                    faults.wrong(place, wrong)

    return put


def _map_setter(field: FieldDescriptor) -> Setter:
    name = field.name
    entry = message_of(field).fields_by_name
    read_key = _key_reader(entry["key"])
    read = value_reader(entry["value"])
    fill = None if read is not None else _filler(entry["value"])
    of_messages = entry["value"].message_type is not None
    takes_null = type_name(entry["value"]) == wellknown.VALUE

    def put(message: Any, value: Any, path: str, faults: Faults, depth: int) -> None:
        if value is None or (type(value) is not dict and not is_object(value, path, faults)):
            return
        values = getattr(message, name)
        for key, given in value.items():
            place = f'{path}["{key}"]'
            try:
                made = read_key(key)
                if given is None and not takes_null:
                    if not faults.nulls_clear:
                        faults.add(place, "A map may not contain null.", "WRONG_TYPE")
                elif fill is not None:
                    fill(values[made], given, place, faults, depth + 1)
                elif of_messages:
                    values[made].CopyFrom(read(given))  # type: ignore[misc]
                else:
                    values[made] = read(given)  # type: ignore[misc]
            except Wrong as wrong:
                faults.wrong(place, wrong)

    return put


def _key_reader(field: FieldDescriptor) -> Reader:
    read = reader_of(field)
    if field.type != _F.TYPE_BOOL:
        return read

    def read_flag(value: Any) -> bool:
        if value not in {"true", "false"}:
            raise Wrong('"true" or "false" is expected.')
        return bool(value == "true")

    return read_flag
