"""Which web pages may call from a browser (CORS); tokens are headers, so no cookie is ever allowed."""

from collections.abc import Mapping, Sequence

from services.gateway.exchange import HeaderList

_ALLOWED = (
    b"authorization, content-type, idempotency-key, if-match, if-none-match, traceparent, "
    b"x-regulars-purpose, x-request-id, x-request-timeout"
)
_EXPOSED = (
    b"content-disposition, etag, location, ratelimit, ratelimit-policy, retry-after, x-export-id, "
    b"x-masked-columns, x-request-id"
)
_MAX_AGE_SECONDS = b"600"


class Cors:
    """Knows the allowed origins ("https://shop.example"; "*" is all)."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)

    def headers(self, request: Mapping[bytes, bytes]) -> HeaderList:
        """For every answer."""
        if not self._origins:
            return []
        origin = request.get(b"origin")
        vary = [(b"vary", b"origin")]
        if origin is None or not self._origins & {origin, b"*"}:
            return vary
        return [
            *vary,
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
        ]

    def preflight(self, request: Mapping[bytes, bytes], allow: str) -> HeaderList:
        """For the answer to a browser's question before a request; `allow` are the path's methods."""
        if b"access-control-request-method" not in request:
            return []
        return [
            (b"access-control-allow-methods", allow.encode()),
            (b"access-control-allow-headers", _ALLOWED),
            (b"access-control-max-age", _MAX_AGE_SECONDS),
        ]
