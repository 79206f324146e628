"""Every refusal is a Problem: a canonical code, a stable reason, and facts a client may act on."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Code(StrEnum):
    """The canonical status codes that a refusal may have (names as in gRPC)."""

    CANCELLED = "CANCELLED"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    UNAUTHENTICATED = "UNAUTHENTICATED"


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field. `field` is the proto path (`customer.addresses[0].postal_code`)."""

    field: str
    description: str
    reason: str = "INVALID"


class Problem(Exception):
    """A refusal. Subclasses set `code`, `reason` (UPPER_SNAKE, at most 63 characters) and `message`.

    Any fact inside the message is also in `metadata` (AIP-193); neither ever holds personal data.
    """

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    message: str = "Internal error."

    def __init__(
        self,
        message: str | None = None,
        *,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        **metadata: object,
    ) -> None:
        self.message = message or type(self).message
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.metadata = {key: str(value) for key, value in metadata.items()}
        super().__init__(self.message)


class InvalidArgument(Problem):
    """The request is wrong in the fields that `violations` names."""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_FIELDS"
    message = "The request has invalid fields."

    @classmethod
    def of(cls, field: str, description: str, reason: str = "INVALID") -> "InvalidArgument":
        """The refusal of one field."""
        return cls(violations=[Violation(field, description, reason)])


class NotFound(Problem):
    """There is no such thing, or none that this caller may see."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"
    message = "Not found."


class PermissionDenied(Problem):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"
    message = "The caller may not do this."


class Unauthenticated(Problem):
    """The caller is not known: no token, or one that does not hold."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"
    message = "A valid bearer token is required."


class Unavailable(Problem):
    """Something that this needs is away; the same call may succeed later."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"
    message = "Temporarily unavailable; try again."


class DeadlineExceeded(Problem):
    """The caller's deadline left no time for an answer."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"
    message = "The deadline is too short."


class Conflict(Problem):
    """Lost a race inside the database; the same call may succeed at once."""

    code = Code.ABORTED
    reason = "CONFLICT"
    message = "The change met another one; try again."


class EtagMismatch(Problem):
    """The resource has changed since the caller read it; read it again before writing."""

    code = Code.ABORTED
    reason = "ETAG_MISMATCH"
    message = "The resource has changed since it was read."


class RequestIdReused(Problem):
    """The request id was used before with another request."""

    code = Code.INVALID_ARGUMENT
    reason = "REQUEST_ID_REUSED"
    message = "This request id was used with another request."


class TooManyRequests(Problem):
    """A limit is reached."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RATE_LIMITED"
    message = "Too many requests."


class Faults:
    """Collects violations, so that a request hears of all its wrong fields at once."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, field: str, description: str, reason: str = "INVALID") -> None:
        """Notes that `field` is wrong."""
        self.found.append(Violation(field, description, reason))

    def refuse(self) -> None:
        """Raises InvalidArgument if anything was wrong."""
        if self.found:
            raise InvalidArgument(violations=self.found)
