"""Query parameters to message fields: every field that neither path nor body binds, by its dotted name."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services.gateway.codec.decode import Setter, scalar_setter, value_reader
from services.gateway.codec.faults import Faults, Wrong
from services.gateway.codec.names import is_list, is_map, message_of, type_name
from services.gateway.codec.scalars import Reader

_DEEPEST = 4
_BOOL_VALUE = "google.protobuf.BoolValue"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field that text can set. `chain` are the fields from the request down to it."""

    name: str
    chain: tuple[FieldDescriptor, ...]
    put: Setter

    @property
    def field(self) -> FieldDescriptor:
        """The field itself."""
        return self.chain[-1]

    def set(self, message: Any, text: str, faults: Faults, path: str = "") -> None:
        """Sets the field, or one more element of it."""
        for field in self.chain[:-1]:
            message = getattr(message, field.name)
        self.put(message, text, path or self.name, faults, 0)

    def get(self, message: Any) -> Any:
        """The field's value, None where it is unset."""
        for field in self.chain[:-1]:
            message = getattr(message, field.name)
        value = getattr(message, self.field.name)
        return value if not self.field.has_presence or message.HasField(self.field.name) else None


def parameters(
    message: Descriptor, readers: Mapping[str, Reader], skip: Callable[[str], bool]
) -> dict[str, Parameter]:
    """Every parameter of a request by its JSON name. `skip` is asked with proto paths ("customer.id")."""
    found: dict[str, Parameter] = {}

    def walk(inside: Descriptor, chain: tuple[FieldDescriptor, ...]) -> None:
        for field in inside.fields:
            below = (*chain, field)
            path = ".".join(step.name for step in below)
            if skip(path) or is_map(field):
                continue
            read = text_reader(field, readers.get(path))
            if read is not None:
                name = ".".join(step.json_name for step in below)
                found[name] = Parameter(name, below, _setter(field, read))
            elif _enters(field, below):
                walk(message_of(field), below)

    walk(message, ())
    return found


def _enters(field: FieldDescriptor, chain: tuple[FieldDescriptor, ...]) -> bool:
    """True for messages whose fields are parameters too; one that contains itself is entered once."""
    above = {step.containing_type for step in chain}
    named = bool(type_name(field)) and not type_name(field).startswith("google.")
    return named and not is_list(field) and len(chain) < _DEEPEST and message_of(field) not in above


def text_reader(field: FieldDescriptor, read: Reader | None = None) -> Reader | None:
    """The reader of a value that a URL gives as text; None if text cannot give it."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _read_flag
    if type_name(field) == _BOOL_VALUE:
        wrap = value_reader(field)
        return lambda text: wrap(_read_flag(text)) if wrap else None
    return read or value_reader(field)


def _read_flag(text: Any) -> bool:
    if text in {"true", "false"}:
        return bool(text == "true")
    raise Wrong("true or false is expected.")


def _setter(field: FieldDescriptor, read: Reader) -> Setter:
    if not is_list(field):
        return scalar_setter(field, read)
    name = field.name

    def append(message: Any, value: Any, path: str, faults: Faults, _: int) -> None:
        elements = getattr(message, name)
        try:
            elements.append(read(value))
        except Wrong as wrong:
            faults.wrong(path, wrong)

    return append


class QueryReader:
    """Reads the query strings of one binding."""

    def __init__(self, known: Mapping[str, Parameter]) -> None:
        self._shown = tuple(known)
        self._known = dict(known)
        for parameter in known.values():
            self._known.setdefault(".".join(field.name for field in parameter.chain), parameter)

    def read(self, query: bytes, message: Any, faults: Faults) -> None:
        """Sets what the query string gives; names what is unknown, wrong or given twice."""
        times: dict[str, int] = {}
        chosen: dict[str, str] = {}
        for name, text in _pairs(query, faults):
            parameter = self._known.get(name)
            if parameter is None:
                faults.unknown(name, name, self._shown, "query parameter")
                continue
            before = times.get(parameter.name, 0)
            times[parameter.name] = before + 1
            listed = is_list(parameter.field)
            if before and not listed:
                faults.add(parameter.name, "The parameter is given twice.", "DUPLICATE_FIELD")
                continue
            oneof = parameter.field.containing_oneof
            if oneof is not None and chosen.setdefault(oneof.full_name, parameter.name) != parameter.name:
                other = chosen[oneof.full_name]
                text_of = f'Only one of "{other}" and "{parameter.name}" may be given.'
                faults.add(parameter.name, text_of, "ONEOF_CONFLICT")
                continue
            path = f"{parameter.name}[{before}]" if listed else parameter.name
            parameter.set(message, text, faults, path)


def _pairs(query: bytes, faults: Faults) -> Iterator[tuple[str, str]]:
    for part in query.split(b"&"):
        if not part:
            continue
        name, _, value = part.partition(b"=")
        try:
            yield _decoded(name), _decoded(value)
        except UnicodeDecodeError:
            faults.add(name.decode("utf-8", "replace"), "The parameter is not valid UTF-8.", "MALFORMED_TEXT")


def _decoded(text: bytes) -> str:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return (unquote_to_bytes(text) if b"%" in text else text).decode()
