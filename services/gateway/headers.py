"""What request headers ask for: media types, a deadline, a request id."""

import re
from collections.abc import Mapping, Sequence

from libs.ids import new_id
from services.gateway.problems import MalformedHeader

JSON, MERGE_PATCH, NDJSON, SSE = (
    "application/json",
    "application/merge-patch+json",
    "application/x-ndjson",
    "text/event-stream",
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
_SECONDS = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s)?", re.ASCII)
_TRACE = re.compile(r"[0-9a-f]{32}", re.ASCII)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
SHORTEST_SECONDS = 0.15  # a service refuses what has under 100 ms left

Headers = Mapping[bytes, bytes]


def request_id(headers: Headers) -> str:
    """The client's X-Request-Id if it is a plain word of 8 to 64 characters, else a new one.

    Nothing else is taken over, because it goes to the logs.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return str(new_id())


def traceparent(headers: Headers, request_id: str) -> str:
    """The client's W3C traceparent; without one, a trace that is named after the request.

    So whoever has the request id of an answer finds it in the logs of every service. "" if neither will do.
    """
    given = headers.get(b"traceparent", b"")
    if _TRACEPARENT.fullmatch(given):
        return given.decode()
    trace = request_id.replace("-", "")
    return f"00-{trace}-{trace[16:]}-01" if _TRACE.fullmatch(trace) else ""


def deadline(headers: Headers, default: float, longest: float) -> float:
    """Seconds that the call may take: X-Request-Timeout ("2.5", "2.5s", "500ms"), cut to what is allowed.

    Raises MalformedHeader.
    """
    given = headers.get(b"x-request-timeout")
    if given is None:
        return default
    found = _SECONDS.fullmatch(given.decode("latin-1").strip())
    if found is None:
        raise MalformedHeader("X-Request-Timeout must be seconds.", header="X-Request-Timeout")
    seconds = float(found[1]) / (1000 if found[2] == "ms" else 1)
    return min(max(seconds, SHORTEST_SECONDS), longest)


def media_type(headers: Headers) -> tuple[str, str]:
    """Type and charset of the body, in lower case, each "" if it is not said."""
    given = headers.get(b"content-type", b"").decode("latin-1").lower()
    kind, _, rest = given.partition(";")
    found = re.search(r'charset="?([^\s";]+)', rest)
    return kind.strip(), found[1] if found else ""


def preferred(accept: bytes | None, offered: Sequence[str]) -> str | None:
    """Which of the offered media types the Accept header likes best; the first of equals; None if none."""
    if accept is None or accept in {b"*/*", b""}:
        return offered[0]
    ranges = [_media_range(part) for part in accept.decode("latin-1").lower().split(",") if part.strip()]
    best, best_weight = None, 0.0
    for kind in offered:
        weight = _weight(kind, ranges)
        if weight > best_weight:
            best, best_weight = kind, weight
    return best


def _media_range(part: str) -> tuple[str, float]:
    kind, _, parameters = part.partition(";")
    found = re.search(r"(?:^|;)\s*q=([0-9.]+)", parameters)
    try:
        weight = float(found[1]) if found else 1.0
    except ValueError:
        weight = 0.0
    return kind.strip(), weight


def _weight(kind: str, ranges: list[tuple[str, float]]) -> float:
    """The weight of the most specific range that covers a type."""
    given = dict(ranges)
    for candidate in (kind, kind.partition("/")[0] + "/*", "*/*"):
        if candidate in given:
            return given[candidate]
    return 0.0
