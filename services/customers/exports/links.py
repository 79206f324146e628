"""Links that download an export's file without a token, until they expire."""

import base64
import binascii
import hashlib
import hmac
from datetime import UTC, datetime
from uuid import UUID

from libs import clock
from libs.crypto import KeyMissing, Keys
from services.customers.exports.problems import LinkExpired, LinkInvalid

# version ‖ tenant ‖ expiry in seconds ‖ signature
_VERSION = b"\x01"
_LABEL = b"regulars export link\x00"
_TENANT, _EXPIRY, _SIGNATURE = slice(1, 17), slice(17, 25), slice(25, 57)
_BYTES = 57


def signed(keys: Keys, tenant_id: UUID, export_id: UUID, expires_at: datetime) -> str:
    """The signed part of a link to an export's file."""
    head = _VERSION + tenant_id.bytes + int(expires_at.timestamp()).to_bytes(8)
    return (
        base64.urlsafe_b64encode(head + _signature(_key(keys, tenant_id), head, export_id))
        .rstrip(b"=")
        .decode()
    )


def tenant_of(keys: Keys, link: str, export_id: UUID) -> UUID:
    """The tenant that signed a link to this export. Raises LinkInvalid, LinkExpired; compares in constant time."""
    try:
        raw = base64.b64decode(link + "=" * (-len(link) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise LinkInvalid from None
    if len(raw) != _BYTES or raw[:1] != _VERSION:
        raise LinkInvalid
    tenant_id = UUID(bytes=raw[_TENANT])
    try:
        key = _key(keys, tenant_id)
    except KeyMissing:
        raise LinkInvalid from None
    if not hmac.compare_digest(raw[_SIGNATURE], _signature(key, raw[: _EXPIRY.stop], export_id)):
        raise LinkInvalid
    if datetime.fromtimestamp(int.from_bytes(raw[_EXPIRY]), UTC) <= clock.now():
        raise LinkExpired
    return tenant_id


def _key(keys: Keys, tenant_id: UUID) -> bytes:
    """A key of the tenant for links alone, made of the one that seals its page tokens."""
    return hmac.digest(keys.for_tenant(tenant_id).page_token_key, _LABEL, hashlib.sha256)


def _signature(key: bytes, head: bytes, export_id: UUID) -> bytes:
    return hmac.digest(key, head + export_id.bytes, hashlib.sha256)
