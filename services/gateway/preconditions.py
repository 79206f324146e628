"""ETags (RFC 9110 §13): what a client requires of a resource, and what it has of it already."""

from collections.abc import Mapping

from libs.problems import EtagMismatch
from services.gateway.codec.faults import Faults


def quoted(etag: str) -> bytes:
    """A resource's etag as a header has it; the field itself is plain text."""
    return etag.encode() if etag.startswith(('"', 'W/"')) else f'"{etag}"'.encode()


def required_etag(headers: Mapping[bytes, bytes], *, accepted: bool, faults: Faults) -> str | None:
    """The etag of If-Match, None if it asks for none. Raises EtagMismatch for weak ones: they never match."""
    given = headers.get(b"if-match")
    if given is None:
        return None
    text = given.decode("latin-1").strip()
    if text == "*":
        return None
    if not accepted:
        faults.add("If-Match", "This call knows no precondition.", "PRECONDITION_NOT_SUPPORTED")
        return None
    if text.startswith("W/"):
        raise EtagMismatch
    if "," in text:
        faults.add("If-Match", "One etag is expected.", "MALFORMED_HEADER")
        return None
    return text.strip('"')


def is_known(headers: Mapping[bytes, bytes], etag: bytes) -> bool:
    """True if If-None-Match names this etag: the client has the resource already."""
    given = headers.get(b"if-none-match")
    if given is None:
        return False
    if given.strip() == b"*":
        return True
    known = etag.removeprefix(b"W/")
    return any(part.strip().removeprefix(b"W/") == known for part in given.split(b","))
