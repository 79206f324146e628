"""Sealed files: what is written is read again, whatever else is tried fails, and nothing is left behind."""

import asyncio
import hashlib
import os
import random
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import ColumnElement, select

from libs.caller import acting_as
from libs.config import Settings
from libs.crypto import SealBroken, tables
from libs.crypto.rotation import rotate, rotation_of_epoch
from libs.ids import new_id
from libs.objects import PIECE_BYTES, ObjectMissing, Objects
from libs.sealed_files import (
    CHUNK_BYTES,
    SEALED_BYTES,
    FileGone,
    FileMissing,
    Files,
    FileTooLarge,
    OpenFile,
    Written,
)
from tests.libs import vaults
from tests.libs.rooms import Machine
from tests.libs.vaults import Vault, opened

LIMIT = 1 << 30
MIB = 1 << 20


@dataclass
class Shelf:
    """A service with files, in the role of one of its tenants."""

    vault: Vault
    files: Files
    objects: Objects
    folder: Path

    async def add(self, *parts: bytes, kept: timedelta | None = None) -> UUID:
        """Writes and keeps a file."""
        written = await self.write(*parts)
        async with self.vault.db.tx() as tx:
            await self.files.keep(tx, written, None if kept is None else tx.now + kept)
        return written.file_id

    async def write(self, *parts: bytes) -> Written:
        return await self.files.write("import", each(*parts), LIMIT)

    async def open(self, file_id: UUID) -> OpenFile:
        with self.vault.audit.reading("user.contact") as reading:
            async with self.files.open(self.vault.db, reading, file_id) as file:
                return file

    async def content(self, file_id: UUID) -> bytes:
        return b"".join([chunk async for chunk in (await self.open(file_id)).chunks()])

    async def destroy(self, file_id: UUID) -> None:
        async with self.vault.db.tx() as tx:
            await self.files.destroy(tx, file_id)

    def pieces(self, file_id: UUID) -> list[Path]:
        return sorted(self.folder.rglob(f"{file_id}.*"))


async def each(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture(scope="module")
async def schema(machine: Machine) -> str:
    return await vaults.migrated(machine)


@pytest.fixture
async def shelf(machine: Machine, schema: str, tmp_path: Path) -> AsyncIterator[Shelf]:
    async with opened(machine, schema, new_id(), tmp_path) as vault:
        objects = Objects.of(Settings(home=tmp_path))
        yield Shelf(vault, Files(vault.name, vault.db, vault.keys, objects), objects, tmp_path / "objects")


@pytest.mark.parametrize(
    "size",
    [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 4 * CHUNK_BYTES, 5 * MIB + 7],
)
async def test_a_file_is_what_was_written(shelf: Shelf, size: int) -> None:
    content = random.Random(size).randbytes(size)
    file_id = await shelf.add(content[: size // 3], b"", content[size // 3 :])
    file = await shelf.open(file_id)
    assert file.size == size
    assert await shelf.content(file_id) == content
    await file.check()
    assert await file.read(size, 10) == b""
    for start in {0, 1, size // 2, max(0, size - 1)}:
        assert await file.read(start, 1000) == content[start : start + 1000]
        assert b"".join([chunk async for chunk in file.chunks(start)]) == content[start:]
    sync = file.sync()
    assert await asyncio.to_thread(sync.read) == content
    sync.seek(size // 2)
    assert sync.read(3) == content[size // 2 : size // 2 + 3]
    assert sync.seek(0, os.SEEK_END) == size
    assert sync.read(1) == b""


async def test_many_megabytes_need_few(shelf: Shelf) -> None:
    block = random.Random(1).randbytes(256 << 10)
    expected = hashlib.sha256()

    async def parts() -> AsyncIterator[bytes]:
        for number in range(256):
            part = number.to_bytes(4) + block[4:]
            expected.update(part)
            yield part

    tracemalloc.start()
    try:
        written = await shelf.files.write("import", parts(), LIMIT)
        async with shelf.vault.db.tx() as tx:
            await shelf.files.keep(tx, written)
        found = hashlib.sha256()
        async for chunk in (await shelf.open(written.file_id)).chunks():
            found.update(chunk)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert written.size == 64 * MIB
    assert found.digest() == expected.digest()
    assert most < 8 * PIECE_BYTES  # of sixteen
    assert len(shelf.pieces(written.file_id)) == 17


async def test_no_clear_text_reaches_the_disk(shelf: Shelf) -> None:
    secret = b"ann.sealed.sentinel@example.com"
    file_id = await shelf.add(secret * 1000)
    stored = [path for path in shelf.folder.parent.rglob("*") if path.is_file()]
    assert shelf.pieces(file_id)[0] in stored
    assert not any(secret in path.read_bytes() for path in stored)
    assert shelf.folder.stat().st_mode & 0o777 == 0o700


async def test_who_changes_cuts_or_swaps_is_found_out(shelf: Shelf) -> None:
    content = random.Random(2).randbytes(3 * CHUNK_BYTES + 100)
    file_id, other_id = await shelf.add(content), await shelf.add(content)
    path, other = shelf.pieces(file_id)[0], shelf.pieces(other_id)[0]
    whole = path.read_bytes()
    chunks = [whole[at : at + SEALED_BYTES] for at in range(0, len(whole), SEALED_BYTES)]
    bent = bytearray(whole)
    bent[500] ^= 1
    for wrong in (
        bytes(bent),
        b"".join([chunks[1], chunks[0], *chunks[2:]]),  # swapped
        b"".join([chunks[0], chunks[0], *chunks[2:]]),  # repeated
        other.read_bytes(),  # another file's, same tenant
    ):
        path.write_bytes(wrong)
        with pytest.raises(SealBroken):
            await shelf.content(file_id)
    for short in (whole[: 2 * SEALED_BYTES], whole[:-1], b""):
        path.write_bytes(short)
        with pytest.raises(ObjectMissing):
            await shelf.content(file_id)
    path.unlink()
    with pytest.raises(ObjectMissing):
        await shelf.content(file_id)


async def test_a_row_that_tells_of_a_shorter_file_cuts_nothing(shelf: Shelf) -> None:
    """Who can change the row, too, makes no chunk the last one that was not."""
    file_id = await shelf.add(random.Random(3).randbytes(3 * CHUNK_BYTES))
    file = await shelf.open(file_id)
    file.size = 2 * CHUNK_BYTES
    with pytest.raises(SealBroken):
        await file.read(CHUNK_BYTES, 10)
    with pytest.raises(SealBroken):
        await file.check()


async def test_other_tenants_see_and_open_nothing(machine: Machine, schema: str, shelf: Shelf) -> None:
    content = b"x" * 100
    file_id = await shelf.add(content)
    stored = shelf.pieces(file_id)[0]
    async with opened(machine, schema, new_id(), shelf.vault.folder) as theirs:
        files = Files(theirs.name, theirs.db, theirs.keys, shelf.objects)
        other = Shelf(theirs, files, shelf.objects, shelf.folder)
        with pytest.raises(FileMissing):
            await other.open(file_id)
        own = await other.add(content)
        other.pieces(own)[0].write_bytes(stored.read_bytes())
        with pytest.raises(SealBroken):
            await other.content(own)
        written = await shelf.files.write("import", each(content), LIMIT)
        ours = await _digest_of(shelf, file_id)
        assert written.digest != ours  # by now we act as the other tenant
        with pytest.raises(ValueError, match="another tenant"), acting_as(shelf.vault.me()):
            async with shelf.vault.db.tx() as tx:
                await shelf.files.keep(tx, written)


async def _digest_of(shelf: Shelf, file_id: UUID) -> bytes:
    with acting_as(shelf.vault.me()):
        async with shelf.vault.db.read() as tx:
            return (await shelf.files.get(tx, file_id)).digest


async def test_the_same_content_is_known_again(shelf: Shelf) -> None:
    first = await shelf.add(b"abc" * 1000)
    second = await shelf.write(b"abc" * 999, b"abc")
    third = await shelf.write(b"abd" * 1000)
    async with shelf.vault.db.tx() as tx:
        await shelf.files.keep(tx, second)
        assert await shelf.files.same(tx, second) == [first]
        assert await shelf.files.same(tx, third) == []
        assert await shelf.files.same(tx, replace(second, purpose="export")) == []
    await shelf.destroy(first)
    async with shelf.vault.db.read() as tx:
        assert await shelf.files.same(tx, second) == []


async def test_a_destroyed_file_cannot_be_read(shelf: Shelf) -> None:
    file_id = await shelf.add(b"x" * 100)
    await shelf.destroy(file_id)
    with pytest.raises(FileGone):
        await shelf.open(file_id)
    [key] = await shelf.vault.rows(tables.subject_keys)
    assert key["wrapped"] is None
    assert shelf.pieces(file_id)
    assert await shelf.files.clean() == 1
    assert shelf.pieces(file_id) == []
    assert await shelf.files.clean() == 0
    await shelf.destroy(file_id)  # nothing happens


async def test_what_has_expired_is_destroyed(shelf: Shelf) -> None:
    over, kept = await shelf.add(b"x", kept=timedelta(seconds=-1)), await shelf.add(b"y")
    with pytest.raises(FileGone):
        await shelf.open(over)
    assert await shelf.files.clean() == 2  # the key, and the object
    assert shelf.pieces(over) == []
    assert await shelf.content(kept) == b"y"
    async with shelf.vault.db.read() as tx:
        known = await shelf.files.get(tx, over)
        wrapped = await tx.scalar(select(tables.subject_keys.c.wrapped).where(_is(over)))
    assert known.destroyed_at is not None
    assert wrapped is None


def _is(file_id: UUID) -> ColumnElement[bool]:
    return tables.subject_keys.c.subject_id == file_id


async def test_what_nobody_keeps_is_removed_after_a_day(shelf: Shelf) -> None:
    young, old = await shelf.write(b"x"), await shelf.write(b"x" * (5 * MIB))
    kept = await shelf.add(b"y")
    for path in [*shelf.pieces(old.file_id)[:1], *shelf.pieces(kept)]:
        os.utime(path, (0, 0))
    assert await shelf.files.clean() == 0  # of the old one a piece is young: somebody may be writing it
    os.utime(shelf.pieces(old.file_id)[1], (0, 0))
    leftover = shelf.pieces(kept)[0].with_suffix(".000001#1")
    leftover.write_bytes(b"half of a piece")
    os.utime(leftover, (0, 0))
    assert await shelf.files.clean() == 2
    assert not leftover.exists()
    assert shelf.pieces(old.file_id) == []
    assert shelf.pieces(young.file_id)
    assert await shelf.content(kept) == b"y"
    await shelf.files.discard(young)
    assert shelf.pieces(young.file_id) == []


async def test_what_fails_leaves_nothing(shelf: Shelf) -> None:
    with pytest.raises(FileTooLarge) as refused:
        await shelf.files.write("import", each(b"x" * 6 * MIB, b"y"), 6 * MIB)
    assert refused.value.metadata == {"limit_bytes": str(6 * MIB)}

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await shelf.files.write("import", broken(), LIMIT)
    stalled = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 6 * MIB
        stalled.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(shelf.files.write("import", endless(), LIMIT))
    await stalled.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path for path in shelf.folder.rglob("*") if path.is_file()] == []


async def test_a_new_tenant_key_opens_old_files(shelf: Shelf) -> None:
    file_id = await shelf.add(b"x" * 100)
    await rotate(shelf.vault.db, shelf.vault.keys, rotation_of_epoch(shelf.vault.keys, 1), grace_seconds=0)
    [key] = await shelf.vault.rows(tables.subject_keys)
    assert key["epoch"] == 2
    assert await shelf.content(file_id) == b"x" * 100


async def test_who_opens_a_file_leaves_a_note(shelf: Shelf) -> None:
    file_id = await shelf.add(b"x")
    await shelf.vault.audit.flush()
    await shelf.open(file_id)
    assert await shelf.vault.audit.flush() == 1
