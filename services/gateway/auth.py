"""Who is calling, by the bearer token; what they may do is the services' to say."""

from collections.abc import Mapping

from libs.problems import Unauthenticated
from libs.tokens import Identity, Tokens

_SCHEME = b"bearer "


async def identify(headers: Mapping[bytes, bytes], tokens: Tokens) -> tuple[Identity, str]:
    """The caller, and the header to forward unchanged. Raises Unauthenticated; Unavailable without keys."""
    given = headers.get(b"authorization")
    if given is None:
        raise Unauthenticated(cause="missing")
    if given[: len(_SCHEME)].lower() != _SCHEME or not given.isascii():
        raise Unauthenticated(cause="scheme")
    header = given.decode()
    return await tokens.user(header[len(_SCHEME) :].strip()), header
