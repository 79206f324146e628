"""What fields and enum values are called in JSON, and the way back to their proto names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

STRUCT = "google.protobuf.Struct"
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class EnumNames:
    """Names of one enum's values.

    `out` has the short name of every number, `into` the number of every accepted name (short and full, upper
    and lower case), `shown` the short names that mean something, in the order of their declaration.
    `absent` is True if zero means "not given" and is left out.
    """

    out: dict[int, str]
    into: dict[str, int]
    shown: tuple[str, ...]
    absent: bool


@cache
def enum_names(enum: EnumDescriptor) -> EnumNames:
    """CUSTOMER_STATUS_ACTIVE of enum CustomerStatus is ACTIVE, unless that is no name or already taken."""
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", enum.name).upper() + "_"
    full = {value.name: value.number for value in enum.values}
    out: dict[int, str] = {}
    into = dict(full)
    for name, number in full.items():
        short = name.removeprefix(prefix)
        if not re.match(r"[A-Za-z_]", short) or full.get(short, number) != number:
            short = name
        into[short] = number
        out.setdefault(number, short)
    into |= {name.lower(): number for name, number in into.items() if name.lower() not in into}
    absent = enum.values_by_number.get(0) is not None and full_name_of_zero(enum).endswith("UNSPECIFIED")
    shown = tuple(name for number, name in out.items() if number or not absent)
    return EnumNames(out, into, shown, absent)


def full_name_of_zero(enum: EnumDescriptor) -> str:
    """The proto name of the value 0 ("CUSTOMER_STATUS_UNSPECIFIED")."""
    return str(enum.values_by_number[0].name)


@cache
def fields_by_any_name(message: Descriptor) -> dict[str, FieldDescriptor]:
    """Every field of a message by its JSON name and by its proto name."""
    by_proto = dict(message.fields_by_name)
    return by_proto | {field.json_name: field for field in message.fields}


def is_map(field: FieldDescriptor) -> bool:
    """True for `map<…>` fields."""
    entry = field.message_type
    return entry is not None and bool(entry.GetOptions().map_entry)


def is_list(field: FieldDescriptor) -> bool:
    """True for repeated fields that are no maps."""
    return bool(field.is_repeated) and not is_map(field)


def type_name(field: FieldDescriptor) -> str:
    """Full name of a field's message or enum type, "" of scalars."""
    kind = field.message_type or field.enum_type
    return "" if kind is None else str(kind.full_name)


def message_of(field: FieldDescriptor) -> Descriptor:
    """The type of a message field. Raises TypeError for others."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} is no message")
    return field.message_type


def hint(name: str, known: Iterable[str]) -> str:
    """`" Did you mean "…"?"` if a known name is near, else nothing."""
    near = get_close_matches(name[:_LONGEST_NAME], list(known), n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else ""


def shown(text: str) -> str:
    """Text of the client as an error message may repeat it: short, and valid Unicode."""
    cut = text if len(text) <= _LONGEST_NAME else text[: _LONGEST_NAME - 1] + "…"
    return cut.encode("utf-8", "replace").decode()


_STEP = re.compile(r'\.?([A-Za-z_][A-Za-z0-9_]*)|\["(?:[^"\\]|\\.)*"\]|\[[^\]]*\]')


def json_path(message: Descriptor, path: str) -> str:
    """`customer.addresses[0].postal_code` as JSON calls it; what is not known stays as it is."""
    place: Descriptor | None = message
    end = 0
    done: list[str] = []
    while end < len(path) and (step := _STEP.match(path, end)):
        end = step.end()
        name = step.group(1)
        if name is None:
            done.append(step.group())
            continue
        field = fields_by_any_name(place).get(name) if place is not None else None
        done.append(("." if done else "") + (name if field is None else field.json_name))
        place = _inside(field)
    return "".join(done) + path[end:]


def proto_path(message: Descriptor, path: str) -> str | None:
    """A mask's path in proto names. None if it names no field; below a map or a Struct anything goes."""
    place: Descriptor | None = message
    done: list[str] = []
    steps = path.split(".")
    for i, name in enumerate(steps):
        field = fields_by_any_name(place).get(name) if place is not None else None
        if field is None:
            return None
        done.append(field.name)
        if i + 1 < len(steps) and (is_map(field) or type_name(field) == STRUCT):
            return ".".join([*done, *steps[i + 1 :]])
        place = _inside(field)
    return ".".join(done)


def _inside(field: FieldDescriptor | None) -> Descriptor | None:
    """The message that a path goes on in after this field."""
    if field is None or field.message_type is None:
        return None
    if is_map(field):
        value: Descriptor | None = field.message_type.fields_by_name["value"].message_type
        return value
    return field.message_type
