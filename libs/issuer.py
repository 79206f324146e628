"""The issuer for development: a key in the home directory, and tokens for whoever may read it."""

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from joserfc import jwt
from joserfc.jwk import ECKey

from libs.files import read_or_create, replace

ISSUER = "regulars-development"


def jwks_file(home: Path) -> Path:
    """Where the public keys are."""
    return home / "issuer" / "jwks.json"


def make_issuer(home: Path, *, rotate: bool = False) -> Path:
    """Makes the issuer's key (ES256, 0600) if it is missing, or one more; gives the file of its public keys.

    Old public keys stay, so tokens of before a rotation hold until they expire.
    """
    folder = home / "issuer"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "key.json"
    if rotate:
        replace(path, _new_key())
    key = ECKey.import_key(json.loads(read_or_create(path, _new_key)))
    published = jwks_file(home)
    known = json.loads(published.read_text())["keys"] if published.exists() else []
    mine = key.as_dict(private=False)
    if mine["kid"] not in {entry["kid"] for entry in known}:
        replace(published, json.dumps({"keys": [mine, *known]}, indent=1).encode(), mode=0o644)
    return published


def _new_key() -> bytes:
    key = ECKey.generate_key("P-256", auto_kid=True, parameters={"alg": "ES256", "use": "sig"})
    return json.dumps(key.as_dict(private=True)).encode()


def mint(
    home: Path,
    *,
    tenant: UUID | None,
    roles: Iterable[str],
    businesses: Iterable[UUID] | None = None,
    customer: UUID | None = None,
    subject: str = "developer",
    name: str | None = None,
    client_id: str | None = None,
    ttl_seconds: float = 3600,
    audience: str = "regulars",
) -> str:
    """A user's token, signed by the development issuer. `businesses` None: all of the tenant."""
    make_issuer(home)
    key = ECKey.import_key(json.loads((home / "issuer" / "key.json").read_text()))
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": audience,
        "sub": subject,
        "iat": now,
        "exp": int(now + ttl_seconds),
        "jti": os.urandom(8).hex(),
        "roles": sorted(roles),
        "businesses": "*" if businesses is None else sorted(str(business) for business in businesses),
    }
    optional = {"tenant": tenant, "customer": customer, "name": name, "client_id": client_id}
    claims |= {key: str(value) for key, value in optional.items() if value is not None}
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key, algorithms=["ES256"])
