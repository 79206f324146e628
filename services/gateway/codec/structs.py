"""Free-form JSON (google.protobuf.Struct and its kin) into messages."""

from typing import Any

from services.gateway.codec.faults import Faults, Wrong
from services.gateway.codec.scalars import read_double, read_text
from services.gateway.codec.text import Repeated

# Messages within messages. Services parse at most 100 levels, and one of a Struct takes three.
MAX_DEPTH = 30


def is_object(value: Any, path: str, faults: Faults) -> bool:
    """True if the value is a JSON object; names what stands in it twice, or that it is none."""
    if type(value) is dict:
        return True
    if isinstance(value, Repeated):
        for name in value.names:
            faults.add(f"{path}.{name}" if path else name, "The field is given twice.", "DUPLICATE_FIELD")
        return True
    faults.add(path, "An object is expected.", "WRONG_TYPE")
    return False


def fill_struct(struct: Any, value: Any, path: str, faults: Faults, depth: int) -> None:
    """Fills a Struct from a JSON object."""
    if type(value) is not dict and not is_object(value, path, faults):
        return
    fields = struct.fields
    for key, given in value.items():
        place = f'{path}["{key}"]'
        try:
            fill_value(fields[read_text(key)], given, place, faults, depth + 1)
        except Wrong as wrong:
            faults.wrong(place, wrong)


def fill_list(values: Any, value: Any, path: str, faults: Faults, depth: int) -> None:
    """Fills a ListValue from a JSON array."""
    if type(value) is not list:
        faults.add(path, "An array is expected.", "WRONG_TYPE")
        return
    for i, element in enumerate(value):
        fill_value(values.values.add(), element, f"{path}[{i}]", faults, depth + 1)


def fill_value(target: Any, value: Any, path: str, faults: Faults, depth: int) -> None:
    """Fills a Value from any JSON value."""
    kind = type(value)
    if depth > MAX_DEPTH:
        faults.add(path, f"Nested more than {MAX_DEPTH} deep.", "TOO_DEEP")
    elif value is None:
        target.null_value = 0
    elif kind is bool:
        target.bool_value = value
    elif kind is str:
        try:
            target.string_value = read_text(value)
        except Wrong as wrong:
            faults.wrong(path, wrong)
    elif kind is list:
        target.list_value.SetInParent()
        fill_list(target.list_value, value, path, faults, depth)
    elif kind is int or kind is float:
        try:
            target.number_value = read_double(value)
        except Wrong as wrong:
            faults.wrong(path, wrong)
    else:
        target.struct_value.SetInParent()
        fill_struct(target.struct_value, value, path, faults, depth)
