"""Each person's data key: made, wrapped by the tenant's key of an epoch, destroyed at the erasure."""

from collections.abc import Collection
from datetime import datetime
from os import urandom
from typing import NamedTuple
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import any_, bindparam

from libs.crypto.faults import SealBroken
from libs.crypto.tables import subject_keys
from libs.db import Tx

DATA_KEY_BYTES = 32
# version ‖ nonce ‖ ciphertext ‖ tag
_VERSION = b"\x01"
_DESTROY = (
    subject_keys.update()
    .where(subject_keys.c.tenant_id == bindparam("of_tenant"))
    .where(subject_keys.c.subject_id == any_(bindparam("of_subjects")))
    .where(subject_keys.c.destroyed_at.is_(None))
    .values(wrapped=None, destroyed_at=bindparam("at"))
    .returning(subject_keys.c.key_id)
)


class SubjectKeyRow(NamedTuple):
    """A new row of `subject_keys`, for the caller's own INSERT. `_asdict()` gives its columns."""

    tenant_id: UUID
    key_id: UUID
    subject_id: UUID
    epoch: int
    wrapped: bytes
    created_at: datetime


def wrap(kek: AESGCM, tenant_id: UUID, key_id: UUID, secret: bytes) -> bytes:
    """A data key under a tenant key, bound to its tenant and id."""
    nonce = urandom(12)
    return _VERSION + nonce + kek.encrypt(nonce, secret, _VERSION + tenant_id.bytes + key_id.bytes)


def unwrap(kek: AESGCM, tenant_id: UUID, key_id: UUID, wrapped: bytes) -> bytes:
    """The data key again. Raises SealBroken if it was changed, moved, or wrapped by another tenant key."""
    try:
        return kek.decrypt(wrapped[1:13], wrapped[13:], wrapped[:1] + tenant_id.bytes + key_id.bytes)
    except (InvalidTag, ValueError):  # ValueError: cut short
        raise SealBroken(f"The wrapped key {key_id} is not what was stored.") from None


async def destroy(tx: Tx, subject_ids: Collection[UUID]) -> list[UUID]:
    """Destroys every data key of these people; gives the ids of the keys. Nothing happens the second time.

    What they sealed is unreadable from the commit on; in backups once the epoch is destroyed (decision 0002).
    """
    done = await tx.execute(
        _DESTROY, {"of_tenant": tx.tenant_id, "of_subjects": list(subject_ids), "at": tx.now}
    )
    return list(done.scalars())
