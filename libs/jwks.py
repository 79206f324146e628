"""Public keys of token issuers: read once, again for an unknown key, kept while the issuer is away."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, Key, OKPKey, RSAKey

from libs.problems import Unavailable

log = logging.getLogger(__name__)

RETRY_SECONDS = 3.0  # between two tries, so that made-up key ids cost the issuer nothing
URL_AGE_SECONDS, FILE_AGE_SECONDS = 300.0, 10.0  # after which withdrawn keys are noticed
MIN_RSA_BITS = 2048


class Jwks:
    """The keys of one issuer, from a file or an http(s) address.

    With neither, the address is asked of the issuer's `/.well-known/openid-configuration`.
    `withdrawn` is called when a key that was known is gone.
    """

    def __init__(self, location: str, issuer: str = "", withdrawn: Callable[[], None] = lambda: None) -> None:
        self._location = location
        self._issuer = issuer
        self._withdrawn = withdrawn
        self._keys: dict[str, Key] = {}
        self._loaded_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._refresh: asyncio.Task[None] | None = None
        web = not location or location.startswith(("http://", "https://"))
        self._max_age = URL_AGE_SECONDS if web else FILE_AGE_SECONDS

    async def find(self, kid: str | None) -> Key | None:
        """The key with this id; without an id, the only key. None if there is none.

        Raises Unavailable while no keys were ever read.
        """
        key = self._known(kid)
        if key is None:
            await self._load()
            if self._loaded_at == float("-inf"):
                raise Unavailable(
                    "The token issuer's keys cannot be read.", retry_after_seconds=RETRY_SECONDS
                )
            return self._known(kid)
        if time.monotonic() - self._loaded_at > self._max_age and self._refresh is None:
            self._refresh = asyncio.create_task(self._load())
            self._refresh.add_done_callback(self._refreshed)
        return key

    async def close(self) -> None:
        """Ends a refresh that is under way."""
        if self._refresh is not None:
            self._refresh.cancel()

    def _refreshed(self, _: asyncio.Task[None]) -> None:
        self._refresh = None

    def _known(self, kid: str | None) -> Key | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _load(self) -> None:
        async with self._lock:
            if time.monotonic() - self._tried_at < RETRY_SECONDS:
                return
            self._tried_at = time.monotonic()
            try:
                keys = parse(await self._read())
            except (OSError, ValueError) as error:
                log.warning("issuer keys not read", extra={"error": type(error).__name__})
                return
            self._loaded_at = time.monotonic()
            gone = self._keys.keys() - keys.keys()
            self._keys = keys
            if gone:
                self._withdrawn()

    async def _read(self) -> bytes:
        if self._location and not self._location.startswith(("http://", "https://")):
            return await asyncio.to_thread(Path(self._location).read_bytes)
        from libs import jwks_http  # whose library is large: few processes ask the web for keys

        if not self._location:
            self._location = await jwks_http.discovered(self._issuer)
        return await jwks_http.get(self._location)


def parse(body: bytes) -> dict[str, Key]:
    """The keys of a JWK set that may verify signatures here, by key id; others are left out.

    Raises ValueError if it is no key set.
    """
    document = orjson.loads(body)
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError("not a JWK set")
    keys: dict[str, Key] = {}
    for entry in document["keys"]:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(entry)
        except (JoseError, ValueError, TypeError, KeyError):
            continue
        if _strong(key):
            keys[str(entry.get("kid") or key.thumbprint())] = key
    return keys


def _strong(key: Key) -> bool:
    if isinstance(key, RSAKey):
        return bool(key.public_key.key_size >= MIN_RSA_BITS)
    return isinstance(key, ECKey | OKPKey) and key.curve_name in {"P-256", "Ed25519"}
