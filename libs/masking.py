"""Fields that a caller may not see are cleared from every answer, and may not be written either."""

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from libs.caller import Caller
from libs.contracts import category
from libs.problems import PermissionDenied
from regulars.options.v1 import options_pb2

LIST = "masked_fields"


class FieldsMasked(PermissionDenied):
    """The caller may not write what it may not read. `fields` in the metadata names the fields."""

    reason = "FIELDS_MASKED"
    message = "The caller may not write fields that it may not read."


def covers(masks: Iterable[str], data_category: str) -> bool:
    """True if the category or one above it is masked ("user.contact" covers "user.contact.email")."""
    return any(data_category == mask or data_category.startswith(mask + ".") for mask in masks)


def mask(message: Message, masks: frozenset[str]) -> None:
    """Clears every field of `message` whose category is masked, however deep it lies.

    What is cleared is named in `masked_fields` of its message, or of the nearest one around it that has such
    a list, whether it had a value or not.
    """
    if not masks:
        return
    plan = _plan(message.DESCRIPTOR, masks)
    if plan.touches:
        plan.apply(message)


def is_masked(field: FieldDescriptor, masks: frozenset[str]) -> bool:
    """True if the field is about a customer and its category is masked."""
    found = category(field)
    if not found or not covers(masks, found):
        return False
    data = field.GetOptions().Extensions[options_pb2.data]
    return bool(data.subject != options_pb2.SUBJECT_STAFF)


def refuse_masked(caller: Caller, descriptor: Descriptor, paths: Iterable[str]) -> None:
    """Raises FieldsMasked if a path ("customer.email", "addresses", "*") leads to a masked field."""
    if not caller.masks:
        return
    named = sorted({name for path in paths for name in _masked_under(descriptor, path, caller.masks)})
    if named:
        raise FieldsMasked(fields=",".join(named))


def _masked_under(descriptor: Descriptor, path: str, masks: frozenset[str]) -> Iterator[str]:
    if path == "*":
        yield from _plan(descriptor, masks).names
        return
    inner: Descriptor | None = descriptor
    walked: list[str] = []
    for name in path.split("."):
        field = inner.fields_by_name.get(name) if inner is not None else None
        if field is None:
            return
        walked.append(name)
        if is_masked(field, masks):
            yield ".".join(walked)
            return
        inner = _inner(field)
    if inner is not None:
        yield from (f"{path}.{name}" for name in _plan(inner, masks).names)


def _inner(field: FieldDescriptor) -> Descriptor | None:
    """The message that a field holds, also of a map's values."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return kind.fields_by_name["value"].message_type
    return kind


class _Plan:
    """What to do with messages of one type for one set of masks."""

    __slots__ = ("clear", "has_list", "inner", "listed", "names")

    def __init__(self, descriptor: Descriptor, masks: frozenset[str], within: tuple[str, ...]) -> None:
        self.has_list = LIST in descriptor.fields_by_name
        self.clear: tuple[str, ...] = tuple(f.name for f in descriptor.fields if is_masked(f, masks))
        self.inner: list[tuple[str, bool, bool, _Plan]] = []
        self.names: list[str] = list(self.clear)
        self.listed: list[str] = list(self.clear)
        within = (*within, descriptor.full_name)
        for field in descriptor.fields:
            held = _inner(field)
            if held is None or field.name in self.clear or held.full_name in within:
                continue
            plan = _Plan(held, masks, within)
            if not plan.touches:
                continue
            is_map = held is not field.message_type
            self.inner.append((field.name, is_map, bool(field.is_repeated), plan))
            self.names += [f"{field.name}.{name}" for name in plan.names]
            if not plan.has_list:
                self.listed += [f"{field.name}.{name}" for name in plan.listed]

    @property
    def touches(self) -> bool:
        """True if anything of such a message may have to be cleared."""
        return bool(self.clear or self.inner)

    def apply(self, message: Any) -> None:
        """Clears and lists."""
        for name in self.clear:
            message.ClearField(name)
        for name, is_map, is_repeated, plan in self.inner:
            if is_repeated:
                held = getattr(message, name)
                for item in held.values() if is_map else held:
                    plan.apply(item)
            elif message.HasField(name):
                plan.apply(getattr(message, name))
        if self.has_list and self.listed:
            message.masked_fields[:] = self.listed


@cache
def _plan(descriptor: Descriptor, masks: frozenset[str]) -> _Plan:
    return _Plan(descriptor, masks, ())
