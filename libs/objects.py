"""Blobs by name, in a directory or a cloud's object storage: the setting `objects` says where.

A blob lies there in pieces of one size, each put whole: so a write holds one piece in memory, and one that is
broken off leaves nothing half uploaded that only the storage's bill knows of.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, GenericError, JoinError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from libs.config import Settings
from libs.problems import Unavailable

PIECE_BYTES = 4 << 20
DELETED_AT_ONCE = 500
# What a writer that was killed leaves in a directory: never listed, and nobody's after a day.
_UNFINISHED = "#"
_UNFINISHED_SECONDS = 86_400


class ObjectMissing(Exception):
    """There is no such blob, or it ends before the bytes that were asked for."""


class Objects:
    """The blobs of everybody who is given the same address. Names are paths of plain words."""

    def __init__(self, store: ObjectStore, root: Path | None = None) -> None:
        """`root` is the directory, if it is one."""
        self._store = store
        self._root = root

    @classmethod
    def of(cls, settings: Settings) -> "Objects":
        """What the settings name: a directory that is ours alone, or s3://, gs://, az:// with a path.

        The clouds' credentials are those of the environment. Raises OSError if the directory cannot be made.
        """
        address = settings.objects_url()
        parts = urlsplit(address)
        if parts.scheme != "file":
            return cls(from_url(address))
        root = Path(unquote(parts.path))
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(LocalStore(root), root)

    async def put(self, name: str, parts: AsyncIterator[bytes]) -> int:
        """Stores a new blob; gives its size in bytes. Raises Unavailable, and whatever `parts` raises.

        After a failure the pieces that are there stay; `delete` removes them.
        """
        size, number = 0, 0
        waiting: list[bytes] = []
        held = 0
        async for part in parts:
            waiting.append(part)
            held += len(part)
            while held >= PIECE_BYTES:
                whole = b"".join(waiting)
                await self._put(_piece(name, number), whole[:PIECE_BYTES])
                rest = whole[PIECE_BYTES:]
                waiting, held = [rest] if rest else [], len(rest)
                size, number = size + PIECE_BYTES, number + 1
        if held or not number:
            await self._put(_piece(name, number), b"".join(waiting))
        return size + held

    async def read(self, name: str, start: int, length: int) -> bytes:
        """These bytes of a blob. Raises ObjectMissing, Unavailable."""
        found = []
        for piece, at, count in _pieces(name, start, length):
            with _faults():
                found.append(await obstore.get_range_async(self._store, piece, start=at, length=count))
        return _whole(found, name, length)

    def read_now(self, name: str, start: int, length: int) -> bytes:
        """The same for code that may block."""
        found = []
        for piece, at, count in _pieces(name, start, length):
            with _faults():
                found.append(obstore.get_range(self._store, piece, start=at, length=count))
        return _whole(found, name, length)

    async def delete(self, name: str) -> None:
        """Removes a blob, or what there is of it."""
        folder, _, own = name.rpartition("/")
        pieces = [
            path async for path, _ in self._list(folder) if path.rpartition("/")[2].startswith(own + ".")
        ]
        for at in range(0, len(pieces), DELETED_AT_ONCE):
            try:
                with _faults():
                    await obstore.delete_async(self._store, pieces[at : at + DELETED_AT_ONCE])
            except ObjectMissing:
                continue  # somebody else removes it too

    async def names(self, prefix: str) -> dict[str, datetime]:
        """The blobs in a folder and those below it, each with the instant at which its last piece came."""
        found: dict[str, datetime] = {}
        async for path, at in self._list(prefix):
            name = path.rpartition(".")[0]
            found[name] = max(at, found.get(name, at))
        return found

    async def clean(self) -> int:
        """Removes what killed writers left unfinished in a directory; gives how many files."""
        return 0 if self._root is None else await asyncio.to_thread(_sweep, self._root)

    async def _put(self, path: str, content: bytes) -> None:
        with _faults():
            await obstore.put_async(self._store, path, content, use_multipart=False)
        if self._root is not None:
            await asyncio.to_thread(_sync, self._root / path)

    async def _list(self, prefix: str) -> AsyncIterator[tuple[str, datetime]]:
        with _faults():
            async for batch in obstore.list(self._store, prefix or None):
                for each in batch:
                    yield each["path"], each["last_modified"].astimezone(UTC)


def _piece(name: str, number: int) -> str:
    return f"{name}.{number:06d}"


def _pieces(name: str, start: int, length: int) -> Iterator[tuple[str, int, int]]:
    """The pieces that hold some bytes: path, first byte, count."""
    while length > 0:
        number, at = divmod(start, PIECE_BYTES)
        count = min(length, PIECE_BYTES - at)
        yield _piece(name, number), at, count
        start, length = start + count, length - count


def _whole(found: list[obstore.Bytes], name: str, length: int) -> bytes:
    whole = bytes(found[0]) if len(found) == 1 else b"".join(map(bytes, found))
    if len(whole) != length:
        raise ObjectMissing(f"{name} ends too soon.")
    return whole


@contextmanager
def _faults() -> Iterator[None]:
    """The storage's errors as ours: what is not there, what is away; the rest is a fault of the settings."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise ObjectMissing("There is no such object.") from error
    except (GenericError, JoinError) as error:
        if "range" in str(error).lower():  # the store knows no better name for a range past the end
            raise ObjectMissing("The object ends too soon.") from error
        raise Unavailable("The object storage does not answer; try again.") from error
    except BaseError as error:
        raise RuntimeError("The object storage refuses") from error


def _sync(path: Path) -> None:
    """On the disk once this returns, name and all: a row may tell of it from now on."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sweep(root: Path) -> int:
    swept = 0
    for folder, _, names in os.walk(root):
        for name in names:
            if _UNFINISHED not in name:
                continue
            path = Path(folder, name)
            try:
                if path.stat().st_mtime < time.time() - _UNFINISHED_SECONDS:
                    path.unlink()
                    swept += 1
            except FileNotFoundError:
                continue
    return swept
