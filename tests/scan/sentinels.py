"""Personal values that nobody could guess, one set for each test run: whatever shows one afterwards has leaked it.

All text values contain one marker, all phones one row of digits, and there is one birth date, so that a scan looks
for a few patterns however many values there were.
"""

import hashlib
import secrets
import string
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests.servers import DIRECTORY

USED = "sentinels-used"


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The values of the run whose directory is `root`: its random name is what they are made from."""

    root: Path

    @property
    def marker(self) -> str:
        """16 small letters that are in every text value."""
        return _letters(self._digest("marker"))

    @property
    def phone_digits(self) -> str:
        """11 digits that every phone begins with, after the plus."""
        digits = int.from_bytes(self._digest("phone")[:8], "big")
        return f"4915{'125679'[digits % 6]}{digits // 6 % 1_000_000:06}"

    @property
    def birth_date(self) -> str:
        """The one birth date; of a time that no other date of a test is of."""
        days = int.from_bytes(self._digest("birth")[:4], "big") % 6_000
        return (date(1901, 1, 1) + timedelta(days=days)).isoformat()

    @property
    def control(self) -> str:
        """What a scan has to find, because the scan itself put it there."""
        return _letters(self._digest("control"))

    def word(self) -> str:
        """A new word with the marker in it."""
        self._note()
        return self.marker + _letters(secrets.token_bytes(16))[:6]

    def name(self) -> str:
        """A name."""
        return self.word().capitalize()

    def email(self) -> str:
        """An e-mail address."""
        return f"{self.word()}@example.com"

    def phone(self) -> str:
        """A German mobile number as E.164; one of a hundred."""
        self._note()
        return f"+{self.phone_digits}{secrets.randbelow(100):02}"

    def text(self) -> str:
        """A sentence."""
        return f"Called about {self.word().upper()}, will write to {self.word()} again."

    def _note(self) -> None:
        (self.root / USED).touch()

    def _digest(self, what: str) -> bytes:
        return hashlib.sha256(f"{self.root.name}\0{what}".encode()).digest()


def _letters(raw: bytes) -> str:
    return "".join(string.ascii_lowercase[byte % 26] for byte in raw[:16])


@pytest.fixture(scope="session")
def sentinels(pytestconfig: pytest.Config) -> Sentinels:
    """The personal values of this run."""
    return Sentinels(Path(pytestconfig.stash[DIRECTORY]))
