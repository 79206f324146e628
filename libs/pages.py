"""Page tokens: where the next page begins, sealed, so that nobody can read or forge it (decision 14)."""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import Message

from libs import caller as callers
from libs import clock
from libs.problems import InvalidArgument, Violation

VALID_FOR = timedelta(hours=24)
_VERSION = b"\x01"
_NONCE_BYTES = 12


class PageTokenInvalid(InvalidArgument):
    """The page token is not one that this list gave for this very request in the last 24 hours."""

    reason = "PAGE_TOKEN_INVALID"
    message = "The page token is not valid for this request; begin again with the first page."


class PageTokens:
    """Seals and opens the page tokens of one service.

    `key` is 32 bytes, or gives the 32 bytes of a tenant.
    """

    def __init__(self, key: bytes | Callable[[UUID], bytes]) -> None:
        self._key = key

    def after(self, request: Message) -> list[Any] | None:
        """The sort keys after which the asked page begins; None for the first page. Raises PageTokenInvalid.

        The request has a field `page_token`; the caller's method, tenant and every other field of the request
        but `page_size` must be those of the page before.
        """
        token = str(getattr(request, "page_token", ""))
        return self.open(token, callers.current().method, filter_hash(request)) if token else None

    def next(self, request: Message, keys: list[Any]) -> str:
        """The token of the page after the row with these sort keys."""
        return self.seal(callers.current().method, filter_hash(request), keys)

    def seal(self, method: str, filters: bytes, keys: list[Any]) -> str:
        """A token of the caller's tenant. Keys are text, numbers, booleans, None, UUIDs, dates, instants."""
        expires = int((clock.now() + VALID_FOR).timestamp())
        body = json.dumps([expires, [_plain(key) for key in keys]], separators=(",", ":")).encode()
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher().encrypt(nonce, body, _bound_to(method, filters))
        return base64.urlsafe_b64encode(_VERSION + nonce + sealed).rstrip(b"=").decode()

    def open(self, token: str, method: str, filters: bytes) -> list[Any]:
        """The sort keys of a token. Raises PageTokenInvalid whatever is wrong with it."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            nonce, sealed = raw[1 : 1 + _NONCE_BYTES], raw[1 + _NONCE_BYTES :]
            if raw[:1] != _VERSION:
                raise _invalid()
            expires, keys = json.loads(self._cipher().decrypt(nonce, sealed, _bound_to(method, filters)))
        except (binascii.Error, ValueError, InvalidTag):
            raise _invalid() from None
        if expires < clock.now().timestamp():
            raise _invalid()
        return [_typed(key) for key in keys]

    def _cipher(self) -> AESGCM:
        key = self._key if isinstance(self._key, bytes) else self._key(callers.current().tenant())
        return AESGCM(key)


def filter_hash(request: Message) -> bytes:
    """What a token holds for: all of the request but the page's own token and size."""
    plain = type(request)()
    plain.CopyFrom(request)
    for name in ("page_token", "page_size"):
        if name in plain.DESCRIPTOR.fields_by_name:
            plain.ClearField(name)
    return hashlib.sha256(plain.SerializeToString(deterministic=True)).digest()


def _bound_to(method: str, filters: bytes) -> bytes:
    tenant = str(callers.current().tenant_id)
    return b"\0".join((_VERSION, method.encode(), tenant.encode(), filters))


def _plain(key: Any) -> Any:
    if isinstance(key, UUID):
        return {"id": str(key)}
    if isinstance(key, datetime):
        return {"at": key.astimezone(UTC).isoformat()}
    if isinstance(key, date):
        return {"on": key.isoformat()}
    if key is None or isinstance(key, str | int | float):
        return key
    raise TypeError(f"{type(key).__name__} is no sort key")


def _typed(key: Any) -> Any:
    if not isinstance(key, dict):
        return key
    ((kind, text),) = key.items()
    readers: dict[str, Callable[[str], Any]] = {
        "id": UUID,
        "at": datetime.fromisoformat,
        "on": date.fromisoformat,
    }
    return readers[kind](text)


def _invalid() -> PageTokenInvalid:
    return PageTokenInvalid(
        violations=[Violation("page_token", PageTokenInvalid.message, PageTokenInvalid.reason)]
    )
