"""gzip for what it makes smaller: JSON, lines and tables of text; never what is compressed already."""

import asyncio
import re
import zlib
from collections.abc import Mapping

# Below this an answer fits one or two packets in any case.
LEAST_BYTES = 1024
# Above this the event loop would be held up.
BESIDE_BYTES = 128 << 10
LEVEL = 1  # what is sent once is not worth more
_KINDS = {"application/json", "application/x-ndjson", "application/xml", "application/javascript"}
_GZIP = 31  # zlib's number for gzip's frame around the largest window
_CODING = re.compile(r"\s*([^;\s]+)\s*(?:;\s*q=([0-9.]+)\s*)?")


def is_compressible(content_type: bytes) -> bool:
    """True for text in whatever form."""
    kind = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    return kind.startswith("text/") or kind in _KINDS or kind.endswith(("+json", "+xml"))


def accepts_gzip(headers: Mapping[bytes, bytes]) -> bool:
    """True if Accept-Encoding names gzip, or all, and not with weight 0."""
    given = headers.get(b"accept-encoding")
    if given is None:
        return False
    weights: dict[str, float] = {}
    for part in given.decode("latin-1").lower().split(","):
        found = _CODING.fullmatch(part)
        if found is not None:
            try:
                weights[found[1]] = float(found[2] or 1)
            except ValueError:
                continue
    return weights.get("gzip", weights.get("*", 0.0)) > 0


class Gzip:
    """One compressed body. Each part can be unpacked as soon as it is there."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(LEVEL, zlib.DEFLATED, _GZIP)

    async def add(self, content: bytes, *, last: bool = False) -> bytes:
        """The next part, flushed; with `last` the end of it."""
        if len(content) > BESIDE_BYTES:
            return await asyncio.to_thread(self._add, content, last)
        return self._add(content, last)

    def _add(self, content: bytes, last: bool) -> bytes:
        packed = self._packer.compress(content)
        return packed + self._packer.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
