"""Fields that a caller may not see are cleared from every answer, and may not be written either."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

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
    plan = _plan(cast(Descriptor, message.DESCRIPTOR), masks)
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
        yield from _names(descriptor, masks)
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
        yield from (f"{path}.{name}" for name in _names(inner, masks))


def _inner(field: FieldDescriptor) -> Descriptor | None:
    """The message that a field holds, also of a map's values."""
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return kind.fields_by_name["value"].message_type
    return kind


class _Plan:
    """What to do with messages of one type for one set of masks. A plan may hold itself, as its message may."""

    __slots__ = ("_has_list", "_inner", "_listed", "clear")

    def __init__(self, descriptor: Descriptor, masks: frozenset[str]) -> None:
        self.clear = tuple(field.name for field in descriptor.fields if is_masked(field, masks))
        self._has_list = LIST in descriptor.fields_by_name
        self._listed = list(_names(descriptor, masks, listed=True))
        self._inner: list[tuple[str, bool, bool, _Plan]] = []

    def fill(self, descriptor: Descriptor, masks: frozenset[str]) -> None:
        """Adds the plans of the fields; apart, because one of them may be this one."""
        for field, held in _reaching(descriptor, masks):
            is_map = held is not field.message_type
            self._inner.append((field.name, is_map, bool(field.is_repeated), _plan(held, masks)))

    @property
    def touches(self) -> bool:
        """True if anything of such a message may have to be cleared."""
        return bool(self.clear or self._inner)

    def apply(self, message: Any) -> None:
        """Clears and lists."""
        for name in self.clear:
            message.ClearField(name)
        for name, is_map, is_repeated, plan in self._inner:
            if is_repeated:
                held = getattr(message, name)
                for item in held.values() if is_map else held:
                    plan.apply(item)
            elif message.HasField(name):
                plan.apply(getattr(message, name))
        if self._has_list and self._listed:
            message.masked_fields[:] = self._listed


_plans: dict[tuple[str, frozenset[str]], _Plan] = {}


def _plan(descriptor: Descriptor, masks: frozenset[str]) -> _Plan:
    key = (descriptor.full_name, masks)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = _Plan(descriptor, masks)
        plan.fill(descriptor, masks)
    return plan


def _reaching(descriptor: Descriptor, masks: frozenset[str]) -> Iterator[tuple[FieldDescriptor, Descriptor]]:
    """The fields that hold messages in which something is masked, and those messages."""
    for field in descriptor.fields:
        held = _inner(field)
        if held is not None and not is_masked(field, masks) and _reaches(held, masks, set()):
            yield field, held


def _reaches(descriptor: Descriptor, masks: frozenset[str], seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    if any(is_masked(field, masks) for field in descriptor.fields):
        return True
    held = (_inner(field) for field in descriptor.fields)
    return any(kind is not None and _reaches(kind, masks, seen) for kind in held)


def _names(
    descriptor: Descriptor, masks: frozenset[str], within: tuple[str, ...] = (), *, listed: bool = False
) -> Iterator[str]:
    """Paths of the masked fields, once for a message inside itself. `listed`: without those listed deeper."""
    yield from (field.name for field in descriptor.fields if is_masked(field, masks))
    within = (*within, descriptor.full_name)
    for field, held in _reaching(descriptor, masks):
        if held.full_name not in within and not (listed and LIST in held.fields_by_name):
            yield from (f"{field.name}.{name}" for name in _names(held, masks, within, listed=listed))
