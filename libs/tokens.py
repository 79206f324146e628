"""Tokens: who is calling, proved by the tenant's issuer or by another of our services."""

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import Key
from joserfc.jws import JWSRegistry

from libs.config import Settings
from libs.internal_keys import InternalKeys
from libs.issuer import ISSUER, jwks_file, make_issuer, mint
from libs.jwks import Jwks
from libs.problems import Unauthenticated

__all__ = ["Identity", "Tokens", "make_issuer", "mint"]

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA", "Ed25519"})
INTERNAL_ISSUER = "regulars-internal"
LEEWAY_SECONDS = 10
CACHED = 10_000
MAX_TOKEN = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a token says that holds. `businesses` is None for all; `expires_at` is in epoch seconds."""

    subject: str
    kind: Literal["user", "customer", "service"]
    tenant_id: UUID | None
    businesses: frozenset[UUID] | None
    roles: frozenset[str] = frozenset()
    customer_id: UUID | None = None
    service: str | None = None
    on_behalf_of: str | None = None
    display_name: str | None = None
    client_id: str | None = None
    expires_at: float


class _Registry(JWSRegistry):
    """Only our algorithms, whatever the library recommends."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


class Tokens:
    """Verifies tokens for one service, each only once until it expires."""

    def __init__(self, service: str, issuer: str, audience: str, jwks: str, internal: Path) -> None:
        self._service = service
        self._issuer = issuer
        self._audience = audience
        self._cache: OrderedDict[bytes, Identity] = OrderedDict()
        self._jwks = Jwks(jwks, issuer, self._cache.clear)
        self._internal = InternalKeys(internal, self._cache.clear)

    @classmethod
    def of(cls, settings: Settings, service: str) -> "Tokens":
        """The verifier that the settings ask for; without an issuer in them, that of development."""
        issuer, jwks = settings.oidc_issuer, settings.oidc_jwks
        if not issuer:
            issuer, jwks = ISSUER, jwks or str(jwks_file(settings.home))
        return cls(service, issuer, settings.oidc_audience, jwks, settings.internal_keys)

    async def user(self, token: str) -> Identity:
        """Who bears a user's token. Raises Unauthenticated (metadata `cause`); Unavailable without keys."""
        cached = self._cached(token)
        if cached is not None and cached.kind != "service":
            return cached
        header = _header(token)
        key = await self._jwks.find(_text(header.get("kid")))
        if key is None:
            raise _refused("key")
        claims = _verified(token, key)
        _check(claims, self._issuer, self._audience)
        return self._keep(token, _user(claims))

    async def internal(self, token: str) -> Identity:
        """Which service bears an internal token that is meant for this one. Raises Unauthenticated."""
        cached = self._cached(token)
        if cached is not None and cached.kind == "service":
            return cached
        service = _text(_header(token).get("kid")) or ""
        try:
            claims = _verified(token, self._internal.find(service))
        except Unauthenticated:
            # The service may have made itself another key.
            claims = _verified(token, self._internal.find(service, again=True))
        _check(claims, INTERNAL_ISSUER, self._service)
        if claims.get("sub") != service:
            raise _refused("subject")
        return self._keep(token, _peer(claims, service))

    async def close(self) -> None:
        """Ends what runs in the background."""
        await self._jwks.close()

    def _cached(self, token: str) -> Identity | None:
        if len(token) > MAX_TOKEN:
            raise _refused("malformed")
        digest = _digest(token)
        identity = self._cache.get(digest)
        if identity is None:
            return None
        if identity.expires_at + LEEWAY_SECONDS <= time.time():
            self._cache.pop(digest, None)
            raise _refused("expired")
        self._cache.move_to_end(digest)
        return identity

    def _keep(self, token: str, identity: Identity) -> Identity:
        self._cache[_digest(token)] = identity
        if len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return identity


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def _refused(cause: str) -> Unauthenticated:
    return Unauthenticated(cause=cause)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _header(token: str) -> dict[str, Any]:
    try:
        return dict(jws.extract_compact(token.encode()).headers())
    except (JoseError, ValueError, TypeError, KeyError):
        raise _refused("malformed") from None


def _verified(token: str, key: Key | None) -> dict[str, Any]:
    if key is None:
        raise _refused("key")
    try:
        return jwt.decode(token, key, registry=_REGISTRY).claims
    except UnsupportedAlgorithmError:
        raise _refused("algorithm") from None
    except (JoseError, ValueError, TypeError, KeyError):
        raise _refused("signature") from None


def _check(claims: dict[str, Any], issuer: str, audience: str) -> None:
    now = time.time()
    if claims.get("iss") != issuer:
        raise _refused("issuer")
    meant_for = claims.get("aud")
    if audience not in (meant_for if isinstance(meant_for, list) else [meant_for]):
        raise _refused("audience")
    if _instant(claims, "exp", required=True) + LEEWAY_SECONDS <= now:
        raise _refused("expired")
    if max(_instant(claims, "nbf"), _instant(claims, "iat")) - LEEWAY_SECONDS > now:
        raise _refused("not_yet")


def _instant(claims: dict[str, Any], name: str, *, required: bool = False) -> float:
    value = claims.get(name)
    if value is None and not required:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise _refused(name)
    return float(value)


def _uuid(value: object, cause: str) -> UUID | None:
    if value is None:
        return None
    try:
        return UUID(value) if isinstance(value, str) and len(value) == 36 else _no_uuid(cause)
    except ValueError:
        return _no_uuid(cause)


def _no_uuid(cause: str) -> UUID:
    raise _refused(cause)


def _businesses(value: object) -> frozenset[UUID] | None:
    """The businesses of a token: "*" is all, none is none."""
    if value == "*":
        return None
    if value is None:
        return frozenset()
    if not isinstance(value, list):
        raise _refused("businesses")
    return frozenset(found for item in value if (found := _uuid(item or "", "businesses")))


def _user(claims: dict[str, Any]) -> Identity:
    subject = _text(claims.get("sub"))
    roles = claims.get("roles", [])
    if subject is None or not isinstance(roles, list):
        raise _refused("claims")
    customer = _uuid(claims.get("customer"), "customer")
    return Identity(
        subject=subject,
        kind="user" if customer is None else "customer",
        tenant_id=_uuid(claims.get("tenant"), "tenant"),
        businesses=_businesses(claims.get("businesses")),
        # A customer's own token gives what customers may do and nothing more, whatever else it says.
        roles=frozenset(r for r in roles if isinstance(r, str))
        if customer is None
        else frozenset({"customer"}),
        customer_id=customer,
        display_name=_text(claims.get("name")),
        client_id=_text(claims.get("client_id")) or _text(claims.get("azp")),
        expires_at=float(claims["exp"]),
    )


def _peer(claims: dict[str, Any], service: str) -> Identity:
    return Identity(
        subject=f"service:{service}",
        kind="service",
        tenant_id=_uuid(claims.get("tenant"), "tenant"),
        businesses=_businesses(claims.get("businesses")),
        roles=frozenset({"service"}),
        service=service,
        on_behalf_of=_text(claims.get("act")),
        expires_at=float(claims["exp"]),
    )
