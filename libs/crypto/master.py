"""The master key wraps the tenants' keys; it comes from the environment or a file and is in no database."""

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs import files
from libs.crypto.faults import CryptoFault

KEY_BYTES = 32
_FORMAT = b"\x01"
_ID_BYTES = 8
_NONCE_BYTES = 12


class BadMasterKey(ValueError):
    """REGULARS_MASTER_KEY is not what it must be. The text never shows it."""


class MasterKeys:
    """The master key, and those before it that still open what they wrapped.

    `text` is one or more keys of 32 bytes in base64, separated by commas or blanks: the first wraps, all
    unwrap. Raises BadMasterKey.
    """

    def __init__(self, text: str) -> None:
        keys = [_decoded(word) for word in text.replace(",", " ").split()]
        if not keys:
            raise BadMasterKey("The master key is missing.")
        self._ciphers = {_id(key): AESGCM(key) for key in keys}
        self._current = _id(keys[0])

    def wrap(self, secret: bytes, place: bytes) -> bytes:
        """`secret` under the current master key, bound to `place`: format ‖ key id ‖ nonce ‖ sealed."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORMAT + self._current + nonce + self._ciphers[self._current].encrypt(nonce, secret, place)

    def unwrap(self, wrapped: bytes, place: bytes) -> bytes:
        """The secret again. Raises CryptoFault if no master key here wrapped it for `place`."""
        body = len(_FORMAT) + _ID_BYTES
        cipher = self._ciphers.get(wrapped[len(_FORMAT) : body])
        if wrapped[: len(_FORMAT)] != _FORMAT or cipher is None:
            raise CryptoFault(f"No master key at hand opens {place.decode()}.")
        try:
            return cipher.decrypt(wrapped[body : body + _NONCE_BYTES], wrapped[body + _NONCE_BYTES :], place)
        except (InvalidTag, ValueError):  # ValueError: cut short
            raise CryptoFault(f"The wrapped key {place.decode()} was changed.") from None

    def is_current(self, wrapped: bytes) -> bool:
        """True if the current master key wrapped this."""
        return wrapped[len(_FORMAT) : len(_FORMAT) + _ID_BYTES] == self._current


def new_master_key() -> str:
    """A fresh master key as text."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def ensure_master_key(path: Path) -> None:
    """Makes a master key file (0600) unless there is one. Two processes at once end with the same key."""
    files.read_or_create(path, lambda: new_master_key().encode())


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"regulars.master\x00" + key).digest()[:_ID_BYTES]


def _decoded(word: str) -> bytes:
    try:
        key = base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise BadMasterKey("The master key is not base64.") from None
    if len(key) != KEY_BYTES:
        raise BadMasterKey(f"The master key has {len(key)} bytes, and must have {KEY_BYTES}.")
    return key
