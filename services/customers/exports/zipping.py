"""A zip archive written front to back, in pieces that other processes may go on with."""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

_LEVEL = 3
# Flags: sizes follow the data (bit 3), names are UTF-8 (bit 11). Method 8 is deflate. The clock stands at 1980-01-01:
# the same customers are the same file.
_FLAGS, _METHOD, _VERSION, _DATE = 0x0808, 8, 20, 0x21
_MOST = 0xFFFFFFFF


class TooLarge(Exception):
    """A part of the archive, or all of it, is above 4 GiB."""


class Zip:
    """An archive of few parts, one after the other. Every method gives the bytes that come next.

    `state` after `pause` is JSON; a Zip made with it goes on there: the end of what `pause` gave is the end of a
    deflate block at a full byte, and the next block refers to nothing before it.
    """

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        found = state or {}
        self._done: list[list[Any]] = [list(each) for each in found.get("done", ())]
        self._offset: int = found.get("offset", 0)
        self._name: str = found.get("name", "")
        self._start: int = found.get("start", 0)
        self._crc: int = found.get("crc", 0)
        self._packed: int = found.get("packed", 0)
        self._size: int = found.get("size", 0)
        self._deflate = _deflate()

    def begin(self, name: str) -> bytes:
        """Begins a part."""
        self._name, self._start, self._crc, self._packed, self._size = name, self._offset, 0, 0, 0
        self._deflate = _deflate()
        plain = name.encode()
        head = struct.pack(
            *("<4s5H3I2H", b"PK\x03\x04", _VERSION, _FLAGS, _METHOD, 0, _DATE, 0, 0, 0, len(plain), 0)
        )
        return self._out(head + plain)

    def write(self, data: bytes) -> bytes:
        """More of the part. Raises TooLarge."""
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        return self._pack(self._deflate.compress(data))

    def end(self) -> bytes:
        """Ends the part. Raises TooLarge."""
        packed = self._pack(self._deflate.flush())
        self._done.append([self._name, self._crc, self._packed, self._size, self._start])
        return packed + self._out(struct.pack("<4s3I", b"PK\x07\x08", self._crc, self._packed, self._size))

    def pause(self) -> bytes:
        """Writes out what is there, so that another Zip can go on with `state`."""
        packed = self._pack(self._deflate.flush(zlib.Z_FULL_FLUSH))
        self._deflate = _deflate()
        return packed

    @property
    def state(self) -> dict[str, Any]:
        """Where it is, after `pause`."""
        return {
            "done": self._done,
            "offset": self._offset,
            "name": self._name,
            "start": self._start,
            "crc": self._crc,
            "packed": self._packed,
            "size": self._size,
        }

    def finish(self) -> bytes:
        """The table of contents, after the last part. Raises TooLarge."""
        start, entries = self._offset, []
        for name, crc, packed, size, at in self._done:
            plain = name.encode()
            entries.append(
                struct.pack(
                    *("<4s6H3I5H2I", b"PK\x01\x02", _VERSION, _VERSION, _FLAGS, _METHOD, 0, _DATE),
                    *(crc, packed, size, len(plain), 0, 0, 0, 0, 0, at),
                )
                + plain
            )
        table = b"".join(entries)
        count = len(self._done)
        return self._out(
            table + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(table), start, 0)
        )

    def _pack(self, packed: bytes) -> bytes:
        self._packed += len(packed)
        if self._size > _MOST:
            raise TooLarge
        return self._out(packed)

    def _out(self, data: bytes) -> bytes:
        self._offset += len(data)
        if self._offset > _MOST:
            raise TooLarge
        return data


def _deflate() -> Any:
    return zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
