"""How many may be in a household, and what the codes look like by which they come in."""

from datetime import timedelta

from services.loyalty.problems import HouseholdFull

# Sixteen letters and digits of Crockford's base 32: 80 bits by chance.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_BYTES = 10
INVITATION_HOLDS = timedelta(days=7)
# Why a member leaves.
LEFT, REMOVED, GONE, MERGED = "LEFT", "REMOVED", "GONE", "MERGED"


def code_of(by_chance: bytes) -> str:
    """The code that these CODE_BYTES bytes make."""
    number = int.from_bytes(by_chance[:CODE_BYTES], "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(75, -1, -5))


def plain(code: str) -> str:
    """What of a code counts: its letters and digits, in upper case."""
    return "".join(each for each in code if each.isalnum()).upper()


def make_room(taken: int, largest: int) -> None:
    """Raises HouseholdFull unless one more may come."""
    if taken >= largest:
        raise HouseholdFull(largest=largest)
