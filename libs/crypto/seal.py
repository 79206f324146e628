"""Sealed values: AES-256-GCM under a person's data key, bound to the one cell that they are written to."""

from os import urandom
from typing import NewType
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.audit import Reading
from libs.crypto.faults import SealBroken

# version ‖ key id ‖ nonce ‖ ciphertext ‖ tag
VERSION = b"\x01"
OVERHEAD_BYTES = 1 + 16 + 12 + 16

Place = NewType("Place", bytes)
"""Where a value belongs: the additional data that AES-GCM authenticates with it."""


class Column:
    """A column that holds sealed values. Made once per column, as a constant."""

    __slots__ = ("_column", "_table", "name")

    def __init__(self, table: str, column: str) -> None:
        """Both names must be plain SQL names."""
        if not (table.isidentifier() and column.isidentifier()):
            raise ValueError(f"{table}.{column} is no column")
        self.name = f"{table}.{column}"
        self._table = table.encode() + b"\x00"
        self._column = column.encode()

    def at(self, tenant_id: UUID, row_id: UUID) -> Place:
        """The cell of this column in one row: version ‖ tenant ‖ table ‖ row id ‖ column."""
        return Place(VERSION + tenant_id.bytes + self._table + row_id.bytes + self._column)


class DataKey:
    """One person's data key, unwrapped. Lives as long as the call that uses it and is kept nowhere."""

    __slots__ = ("cipher", "head", "key_id")

    def __init__(self, key_id: UUID, secret: bytes) -> None:
        self.key_id = key_id
        self.head = VERSION + key_id.bytes
        self.cipher = AESGCM(secret)


def seal(key: DataKey, place: Place, plaintext: bytes) -> bytes:
    """`plaintext` as it is stored at `place`: longer by OVERHEAD_BYTES, different each time."""
    nonce = urandom(12)
    return key.head + nonce + key.cipher.encrypt(nonce, plaintext, place)


def open_sealed(reading: Reading, customer_id: UUID, key: DataKey, place: Place, sealed: bytes) -> bytes:
    """The plaintext of a value of `customer_id` that was sealed for `place`; `reading` records it.

    Raises SealBroken if the value was changed, comes from another place, or is another key's.
    """
    reading.opened(customer_id)
    if sealed[:17] != key.head:
        raise SealBroken(f"A value is not sealed under key {key.key_id}.")
    try:
        return key.cipher.decrypt(sealed[17:29], sealed[29:], place)
    except (InvalidTag, ValueError):  # ValueError: cut short
        raise SealBroken(f"A value under key {key.key_id} does not belong where it was found.") from None


def key_id_of(sealed: bytes) -> UUID:
    """The id of the data key that a sealed value names. Raises SealBroken if it is no sealed value."""
    if len(sealed) < OVERHEAD_BYTES or sealed[:1] != VERSION:
        raise SealBroken("Not a sealed value.")
    return UUID(bytes=sealed[1:17])
