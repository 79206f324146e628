"""The internal issuer: each service signs for itself; the public keys are in one directory."""

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from libs.caller import Caller
from libs.config import SERVICES
from libs.files import read_or_create, replace

INTERNAL_ISSUER = "regulars-internal"
ALGORITHM = "Ed25519"  # RFC 9864: EdDSA with the curve named
LIFE_SECONDS, LEFT_SECONDS = 60, 20
CACHED = 4096
RETRY_SECONDS = 1.0


def public_file(directory: Path, service: str) -> Path:
    """Where a service publishes its key for the others."""
    return directory / "public" / f"{service}.pem"


class InternalKeys:
    """The public keys of all services. `changed` is called when a service has another key than before."""

    def __init__(self, directory: Path, changed: Callable[[], None] = lambda: None) -> None:
        self._directory = directory
        self._changed = changed
        self._keys: dict[str, tuple[OKPKey, bytes]] = {}
        self._read_at: dict[str, float] = {}

    def find(self, service: str, *, again: bool = False) -> OKPKey | None:
        """The key of a service, or None. `again` looks at the file once more, at most every second."""
        if service not in SERVICES:
            return None
        known = self._keys.get(service)
        waited = time.monotonic() - self._read_at.get(service, float("-inf"))
        if waited >= RETRY_SECONDS and (known is None or again):
            self._read_at[service] = time.monotonic()
            self._read(service)
        found = self._keys.get(service)
        return found[0] if found else None

    def _read(self, service: str) -> None:
        try:
            pem = public_file(self._directory, service).read_bytes()
            key = OKPKey.import_key(pem)
        except (OSError, JoseError, ValueError):
            return
        known = self._keys.get(service)
        self._keys[service] = (key, pem)
        if known is not None and known[1] != pem:
            self._changed()


class InternalIssuer:
    """Signs one service's calls to its peers. The key (0600) is made on first use."""

    def __init__(self, service: str, directory: Path) -> None:
        self._service = service
        pem = read_or_create(directory / f"{service}.pem", _new_key)
        self._key = OKPKey.import_key(pem)
        public = public_file(directory, service)
        public.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not public.exists() or public.read_bytes() != self._key.as_pem(private=False):
            replace(public, self._key.as_pem(private=False), mode=0o644)
        self._cache: OrderedDict[tuple[object, ...], tuple[str, float]] = OrderedDict()

    def token(self, target: str, caller: Caller) -> str:
        """A token for `target` on behalf of `caller`, of 60 s; used again while more than 20 s are left."""
        act = caller.on_behalf_of or caller.subject
        key = (target, caller.tenant_id, caller.businesses, act)
        now = time.time()
        kept = self._cache.get(key)
        if kept is not None and kept[1] - now > LEFT_SECONDS:
            self._cache.move_to_end(key)
            return kept[0]
        expires_at = int(now) + LIFE_SECONDS
        claims: dict[str, object] = {
            "iss": INTERNAL_ISSUER,
            "sub": self._service,
            "aud": target,
            "iat": int(now),
            "exp": expires_at,
            "businesses": "*" if caller.businesses is None else sorted(str(b) for b in caller.businesses),
            "act": act,
        }
        if caller.tenant_id is not None:
            claims["tenant"] = str(caller.tenant_id)
        header = {"alg": ALGORITHM, "kid": self._service}
        token = jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])
        self._cache[key] = (token, expires_at)
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return token


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
