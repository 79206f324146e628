"""What a business may be, and what its attributes may hold."""

from collections.abc import Callable
from dataclasses import dataclass

from libs import formats
from libs.formats import Wrong

TEXT, NUMBER, BOOLEAN, DATE, CHOICE = 1, 2, 3, 4, 5  # AttributeType
MAX_ATTRIBUTES = 200
MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class AttributeDefinition:
    """What a business declared of one custom attribute. `type` is a number of AttributeType."""

    name: str
    type: int
    choices: tuple[str, ...] = ()
    not_personal: bool = False
    archived: bool = False


def attribute_value(definition: AttributeDefinition, given: object) -> object:
    """The value as the definition wants it. Raises Wrong if it is of another type."""
    return _RULES[definition.type](definition, given)


def _text(_: AttributeDefinition, given: object) -> str:
    if not isinstance(given, str) or len(given) > MAX_TEXT:
        raise Wrong(f"must be text of at most {MAX_TEXT:,} characters")
    return formats.line(given)


def _number(_: AttributeDefinition, given: object) -> float | int:
    if isinstance(given, bool) or not isinstance(given, int | float) or given - given != 0:
        raise Wrong("must be a number")
    return int(given) if float(given).is_integer() and abs(given) <= 2**53 else given


def _boolean(_: AttributeDefinition, given: object) -> bool:
    if not isinstance(given, bool):
        raise Wrong("must be true or false")
    return given


def _date(_: AttributeDefinition, given: object) -> str:
    return formats.iso_date(str(given)).isoformat()


def _choice(definition: AttributeDefinition, given: object) -> str:
    if not isinstance(given, str) or given not in definition.choices:
        raise Wrong("must be one of: " + ", ".join(definition.choices[:20]))
    return given


_RULES: dict[int, Callable[[AttributeDefinition, object], object]] = {
    TEXT: _text,
    NUMBER: _number,
    BOOLEAN: _boolean,
    DATE: _date,
    CHOICE: _choice,
}
