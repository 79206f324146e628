"""Search tokens: what an index may hold of a text's terms, keyed and put into buckets.

A term becomes the number of its bucket, and the bucket a keyed 32-bit token: equal terms give equal tokens, and
so do a few others, so that counting tokens tells little about terms. What a search finds by tokens are candidates,
to be compared with the text itself. Source: decision 0012.
"""

import hmac
from collections.abc import Callable, Iterable, Mapping

MAX_CACHED = 20_000
# Of short terms there are few: three letters, four digits.
_SHORT, MAX_SHORT = 5, 100_000
_WHOLE = 32

Terms = Callable[[str], Iterable[tuple[str, str]]]
"""Gives the terms of one text, each as (space, term). Terms of different spaces never share a token."""


class SearchTokens:
    """The tokens of one version of a tenant's search key. Remembers the tokens of texts that it has seen."""

    __slots__ = ("_bits", "_key", "_of_bucket", "_of_short", "_of_text")

    def __init__(self, key: bytes, bits: Mapping[str, int]) -> None:
        """`bits` says for each space how many buckets it has, as a power of two; 32 means no buckets."""
        self._key = key
        self._bits = dict(bits)
        self._of_bucket: dict[tuple[str, int], int] = {}
        self._of_short: dict[tuple[str, str], int] = {}
        self._of_text: dict[tuple[Terms, str], tuple[int, ...]] = {}

    def token(self, space: str, term: str) -> int:
        """The token of one term: a signed 32-bit number."""
        bits = self._bits[space]
        digest = hmac.digest(self._key, f"{space}\0{term}".encode(), "sha256")
        bucket = int.from_bytes(digest[:4]) >> (_WHOLE - bits)
        found = self._of_bucket.get((space, bucket))
        if found is None:
            named = f"bucket\0{space}\0{bucket}".encode()
            found = int.from_bytes(hmac.digest(self._key, named, "sha256")[:4], signed=True)
            if bits < _WHOLE:
                self._of_bucket[space, bucket] = found
        return found

    def all(self, terms: Iterable[tuple[str, str]]) -> set[int]:
        """The tokens of many terms. Remembers those of short ones."""
        known, found = self._of_short, set()
        for term in terms:
            token = known.get(term)
            if token is None:
                token = self.token(*term)
                if len(term[1]) <= _SHORT:
                    if len(known) >= MAX_SHORT:
                        known.clear()
                    known[term] = token
            found.add(token)
        return found

    def of(self, terms: Terms, text: str) -> tuple[int, ...]:
        """The tokens of the terms of a text, each once."""
        at = (terms, text)
        found = self._of_text.get(at)
        if found is None:
            if len(self._of_text) >= MAX_CACHED:
                self._of_text.clear()
            found = self._of_text[at] = tuple(
                dict.fromkeys(self.token(space, term) for space, term in terms(text))
            )
        return found
