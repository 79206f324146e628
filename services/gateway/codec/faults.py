"""What is wrong with one request, field by field, so that the client hears all of it at once."""

from collections.abc import Iterable

from libs.problems import InvalidArgument, Violation
from services.gateway.codec.names import hint, shown

LISTED = 50  # more are only counted


class Wrong(Exception):
    """One value cannot be what its field wants; whoever knows the field says where."""

    def __init__(self, description: str, reason: str = "WRONG_TYPE") -> None:
        self.description = description
        self.reason = reason
        super().__init__(description)


class Faults:
    """Collects violations by JSON path ("customer.addresses[0].postalCode").

    `nulls_clear`: the request is an update, in which null removes an entry of a map.
    """

    def __init__(self, *, nulls_clear: bool = False) -> None:
        self.nulls_clear = nulls_clear
        self.violations: list[Violation] = []
        self.total = 0

    def add(self, field: str, description: str, reason: str = "INVALID") -> None:
        """One more wrong field."""
        self.total += 1
        if self.total <= LISTED:
            self.violations.append(Violation(shown_path(field), description, reason))

    def wrong(self, field: str, wrong: Wrong) -> None:
        """One more wrong field, as its reader said."""
        self.add(field, wrong.description, wrong.reason)

    def unknown(self, field: str, name: str, known: Iterable[str], kind: str = "field") -> None:
        """A name that is none, with the one that was probably meant."""
        near = hint(name, known) if self.total < LISTED else ""
        self.add(
            field, f'There is no {kind} "{shown(name)}".{near}', f"UNKNOWN_{kind.upper()}".replace(" ", "_")
        )

    def problem(self) -> InvalidArgument:
        """The refusal that names all of them."""
        return InvalidArgument(violations=self.violations, violations_total=self.total)

    def __bool__(self) -> bool:
        return self.total > 0


def shown_path(path: str) -> str:
    """A path as an answer may repeat it: a key of the client may be long or broken."""
    cut = path if len(path) <= 256 else path[:255] + "…"
    return cut.encode("utf-8", "replace").decode()
