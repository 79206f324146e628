"""Files with personal data: sealed in chunks under a key of their own before they reach any disk (decision 5).

A file is written first and kept by the transaction that gives it a meaning; what nobody keeps is removed. Its key is
a row of `subject_keys` whose subject is the file, so the tenant's key rotation covers it, and destroying that row
makes the file unreadable at once, wherever copies of it lie.
"""

import asyncio
import hmac
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from os import urandom
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import and_, insert, select, tuple_, update

from libs import caller as callers
from libs.audit import Reading
from libs.caller import Caller, acting_as
from libs.crypto import KeyDestroyed, Keys, SealBroken, live_versions, subject_keys
from libs.crypto import tables as crypto
from libs.crypto.subject_keys import DATA_KEY_BYTES
from libs.db import Database, Tx
from libs.ids import new_id, parse_id
from libs.objects import ObjectMissing, Objects
from libs.plumbing import files
from libs.problems import Code, NotFound, Problem, Unavailable

KEPT_FOR = timedelta(days=7)
# An object that no row tells of may be of a file that is being written; after a day without a new piece it is not.
ORPHAN_AFTER = timedelta(days=1)
AT_ONCE = 500

# A stored chunk: version ‖ nonce ‖ ciphertext ‖ tag, a mebibyte of it; only the last one is shorter.
_VERSION = b"\x01"
_OVERHEAD = 1 + 12 + 16
SEALED_BYTES = 1 << 20
CHUNK_BYTES = SEALED_BYTES - _OVERHEAD

_f, _k = files.c, crypto.subject_keys.c
_OPEN = select(files, _k.epoch, _k.wrapped).join(
    crypto.subject_keys, and_(_k.tenant_id == _f.tenant_id, _k.key_id == _f.key_id)
)


class FileMissing(NotFound):
    """There is no such file of this tenant."""

    reason = "FILE_NOT_FOUND"
    message = "There is no such file."


class FileGone(Problem):
    """The file's time is over, or it was destroyed: nobody can read it any more."""

    code = Code.FAILED_PRECONDITION
    reason = "FILE_GONE"
    message = "The file is no longer kept."


class FileTooLarge(Problem):
    """More bytes came than may (metadata `limit_bytes`). 413 over REST."""

    code = Code.INVALID_ARGUMENT
    reason = "FILE_TOO_LARGE"
    message = "The file is too large."


@dataclass(frozen=True, slots=True)
class Written:
    """A file in the storage that no row tells of yet: `size` in bytes, `digest` equal for equal content of a tenant."""

    tenant_id: UUID
    file_id: UUID
    purpose: str
    size: int
    digest: bytes
    key_id: UUID
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of a file without opening it."""

    file_id: UUID
    purpose: str
    size: int
    digest: bytes
    created_at: datetime
    expires_at: datetime
    destroyed_at: datetime | None


class OpenFile:
    """A file that was opened and noted as read; sealed bytes come from the storage as they are asked for.

    It can be read for longer than the block that opened it, so that the note is written before the answer leaves.
    Reading raises SealBroken for what is not as it was written, ObjectMissing, Unavailable.
    """

    def __init__(
        self, objects: Objects, name: str, tenant_id: UUID, file_id: UUID, size: int, secret: bytes
    ) -> None:
        self.file_id = file_id
        self.size = size
        self._objects = objects
        self._name = name
        self._seal = _Seal(tenant_id, file_id, secret)

    async def read(self, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset` on; fewer only at the end of the file."""
        end = min(self.size, offset + length)
        found = []
        for number in _numbers(offset, end):
            first = number * CHUNK_BYTES
            chunk = await self._chunk(number)
            found.append(chunk[max(0, offset - first) : end - first])
        return b"".join(found)

    async def chunks(self, start: int = 0) -> AsyncIterator[bytes]:
        """The content from a byte on, in pieces of up to a mebibyte."""
        for number in _numbers(start, self.size):
            chunk = await self._chunk(number)
            yield chunk[max(0, start - number * CHUNK_BYTES) :]

    async def check(self) -> None:
        """Reads the end of the file. Raises ObjectMissing or SealBroken if it is not all there."""
        await self._chunk(_last(self.size))

    def sync(self) -> io.BufferedReader:
        """The content as a seekable file, for code that may block."""
        return io.BufferedReader(_Raw(self), CHUNK_BYTES)

    def chunk_now(self, number: int) -> bytes:
        """One chunk, for code that may block."""
        sealed = self._objects.read_now(self._name, number * SEALED_BYTES, self._sealed_bytes(number))
        return self._seal.open(number, number == _last(self.size), sealed)

    async def _chunk(self, number: int) -> bytes:
        sealed = await self._objects.read(self._name, number * SEALED_BYTES, self._sealed_bytes(number))
        return await asyncio.to_thread(self._seal.open, number, number == _last(self.size), sealed)

    def _sealed_bytes(self, number: int) -> int:
        return min(CHUNK_BYTES, self.size - number * CHUNK_BYTES) + _OVERHEAD


class Files:
    """The sealed files of one service."""

    def __init__(self, service: str, db: Database, keys: Keys, objects: Objects, prefix: str = "") -> None:
        """`prefix` tells stacks that share a storage from each other."""
        self._service = service
        self._db = db
        self._keys = keys
        self._objects = objects
        self._folder = f"{prefix}{service}"

    async def write(self, purpose: str, parts: AsyncIterator[bytes], limit: int) -> Written:
        """Seals and stores a file of the caller's tenant as it arrives: a few megabytes of memory at any size.

        `purpose` is a plain word ("import"), `limit` in bytes. What fails leaves nothing behind, or for a day. Raises
        FileTooLarge, Unavailable, and whatever `parts` raises.
        """
        tenant_id, file_id = callers.current().tenant(), new_id()
        secret = urandom(DATA_KEY_BYTES)
        sealing = _Sealing(
            _Seal(tenant_id, file_id, secret), self._keys.for_tenant(tenant_id).request_hash_key, limit
        )
        name = self._name(tenant_id, file_id)
        try:
            await self._objects.put(name, sealing.sealed(parts))
        except BaseException:
            await asyncio.shield(self._remove(name))
            raise
        return Written(tenant_id, file_id, purpose, sealing.size, sealing.digest(), new_id(), secret)

    async def keep(self, tx: Tx, written: Written, expires_at: datetime | None = None) -> None:
        """Inserts the rows of a file and its key; it is kept for 7 days if nothing else is said."""
        if tx.tenant_id != written.tenant_id:
            raise ValueError("a file of another tenant")
        live = await live_versions(tx)
        key = self._keys.for_tenant(written.tenant_id).row_of_key(
            live, written.file_id, written.key_id, written.secret, tx.now
        )
        await tx.execute(insert(crypto.subject_keys).values(key._asdict()))
        await tx.execute(
            insert(files).values(
                tenant_id=written.tenant_id,
                file_id=written.file_id,
                key_id=written.key_id,
                purpose=written.purpose,
                size=written.size,
                digest=written.digest,
                created_at=tx.now,
                expires_at=expires_at or tx.now + KEPT_FOR,
            )
        )

    async def discard(self, written: Written) -> None:
        """Removes a file that is not to be kept after all. Nothing happens if that fails: cleaning removes it."""
        await self._remove(self._name(written.tenant_id, written.file_id))

    def unkept(self, written: Written) -> OpenFile:
        """A file that was just written, for who looks at it before keeping it."""
        name = self._name(written.tenant_id, written.file_id)
        return OpenFile(self._objects, name, written.tenant_id, written.file_id, written.size, written.secret)

    async def get(self, tx: Tx, file_id: UUID) -> Kept:
        """What is known of a file of the caller's tenant. Raises FileMissing."""
        found = select(files).where(_f.tenant_id == tx.tenant_id, _f.file_id == file_id)
        row = (await tx.execute(found)).first()
        if row is None:
            raise FileMissing
        known = row._asdict()
        return Kept(**{name: known[name] for name in Kept.__slots__})

    async def same(self, tx: Tx, written: Written) -> list[UUID]:
        """The kept files of this purpose that have the same content, the newest first."""
        found = select(_f.file_id).where(
            _f.tenant_id == tx.tenant_id,
            _f.purpose == written.purpose,
            _f.digest == written.digest,
            _f.destroyed_at.is_(None),
            _f.file_id != written.file_id,
        )
        return list((await tx.execute(found.order_by(_f.file_id.desc()))).scalars())

    @asynccontextmanager
    async def open(self, where: Tx | Database, reading: Reading, file_id: UUID) -> AsyncIterator[OpenFile]:
        """A file of the caller's tenant, noted in `reading`. Reads no content yet.

        In a transaction it only looks the key up: read the content after it. Raises FileMissing, FileGone.
        """
        if isinstance(where, Tx):
            found = await self._opened(where, reading, file_id)
        else:
            async with where.read() as tx:
                found = await self._opened(tx, reading, file_id)
        yield found

    async def destroy(self, tx: Tx, file_id: UUID) -> None:
        """Makes a file unreadable from the commit on; cleaning removes what is left of it."""
        await subject_keys.destroy(tx, [file_id])
        await tx.execute(
            update(files)
            .where(_f.tenant_id == tx.tenant_id, _f.file_id == file_id, _f.destroyed_at.is_(None))
            .values(destroyed_at=tx.now)
        )

    async def clean(self) -> int:
        """Destroys what has expired, of all tenants, and removes objects that nobody keeps; gives how many."""
        return await self._expire() + await self._remove_orphans() + await self._objects.clean()

    async def _opened(self, tx: Tx, reading: Reading, file_id: UUID) -> OpenFile:
        row = (await tx.execute(_OPEN.where(_f.tenant_id == tx.tenant_id, _f.file_id == file_id))).first()
        if row is None:
            raise FileMissing
        if row.destroyed_at is not None or row.expires_at <= tx.now:
            raise FileGone
        tenant_id = tx.tenant_id
        try:
            secret = self._keys.for_tenant(tenant_id).unwrapped(row.key_id, row.epoch, row.wrapped)
        except KeyDestroyed:
            raise FileGone from None
        reading.opened(file_id)
        name = self._name(tenant_id, file_id)
        return OpenFile(self._objects, name, tenant_id, file_id, row.size, secret)

    async def _expire(self) -> int:
        async with self._db.worker() as tx:
            due = select(_f.tenant_id, _f.file_id).where(_f.destroyed_at.is_(None), _f.expires_at <= tx.now)
            found = (await tx.execute(due.limit(AT_ONCE))).all()
        by_tenant: dict[UUID, list[UUID]] = {}
        for row in found:
            by_tenant.setdefault(row.tenant_id, []).append(row.file_id)
        for tenant_id, ids in by_tenant.items():
            us = Caller(tenant_id=tenant_id, subject=self._service, kind="service", service=self._service)
            with acting_as(us):
                async with self._db.tx() as tx:
                    for file_id in ids:
                        await self.destroy(tx, file_id)
        return len(found) + (await self._expire() if len(found) == AT_ONCE else 0)

    async def _remove_orphans(self) -> int:
        """First the objects, then the rows: a file that is kept meanwhile has its row by then."""
        named = await self._objects.names(self._folder)
        found = {ids: (name, at) for name, at in named.items() if (ids := self._ids(name))}
        removed, every = 0, list(found)
        for at in range(0, len(every), AT_ONCE):
            some = every[at : at + AT_ONCE]
            async with self._db.worker() as tx:
                rows = await tx.execute(
                    select(_f.tenant_id, _f.file_id, _f.destroyed_at).where(
                        tuple_(_f.tenant_id, _f.file_id).in_(some)
                    )
                )
                kept = {(row.tenant_id, row.file_id): row.destroyed_at is None for row in rows}
            for ids in some:
                name, changed_at = found[ids]
                if kept.get(ids, changed_at > datetime.now(UTC) - ORPHAN_AFTER):
                    continue
                await self._objects.delete(name)
                removed += 1
        return removed

    async def _remove(self, name: str) -> None:
        with suppress(Unavailable, ObjectMissing, RuntimeError):  # cleaning comes by again
            await self._objects.delete(name)

    def _name(self, tenant_id: UUID, file_id: UUID) -> str:
        return f"{self._folder}/{tenant_id}/{file_id}"

    def _ids(self, name: str) -> tuple[UUID, UUID] | None:
        """Tenant and file of an object; None if it is none of ours."""
        parts = name.removeprefix(self._folder + "/").split("/")
        if len(parts) != 2:
            return None
        tenant_id, file_id = parse_id(parts[0]), parse_id(parts[1])
        return None if tenant_id is None or file_id is None else (tenant_id, file_id)


class _Seal:
    """Seals the chunks of one file: bound to tenant, file and number, and to whether another one follows."""

    __slots__ = ("_cipher", "_head", "_name")

    def __init__(self, tenant_id: UUID, file_id: UUID, secret: bytes) -> None:
        self._cipher = AESGCM(secret)
        self._head = _VERSION + tenant_id.bytes + file_id.bytes
        self._name = file_id

    def seal(self, number: int, last: bool, chunk: bytes) -> bytes:
        nonce = urandom(12)
        return _VERSION + nonce + self._cipher.encrypt(nonce, chunk, self._place(number, last))

    def open(self, number: int, last: bool, sealed: bytes) -> bytes:
        """Raises SealBroken."""
        try:
            if sealed[:1] != _VERSION:
                raise InvalidTag
            return self._cipher.decrypt(sealed[1:13], sealed[13:], self._place(number, last))
        except (InvalidTag, ValueError):
            raise SealBroken(f"Chunk {number} of file {self._name} is not what was stored.") from None

    def _place(self, number: int, last: bool) -> bytes:
        return self._head + number.to_bytes(8) + bytes([last])


class _Sealing:
    """A file on its way to the storage: cuts, counts, hashes and seals, a chunk at a time, beside the event loop."""

    def __init__(self, seal: _Seal, hash_key: bytes, limit: int) -> None:
        self.size = 0
        self._seal = seal
        self._limit = limit
        self._hash = hmac.new(hash_key, b"file\x00", "sha256")

    def digest(self) -> bytes:
        return self._hash.digest()

    async def sealed(self, parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Raises FileTooLarge."""
        waiting = bytearray()
        number = 0
        async for part in parts:
            self.size += len(part)
            if self.size > self._limit:
                raise FileTooLarge(limit_bytes=self._limit)
            waiting += part
            while len(waiting) > CHUNK_BYTES:  # one that is just full may be the last
                chunk = bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
                yield await asyncio.to_thread(self._one, number, False, chunk)
                number += 1
        yield await asyncio.to_thread(self._one, number, True, bytes(waiting))

    def _one(self, number: int, last: bool, chunk: bytes) -> bytes:
        self._hash.update(chunk)
        return self._seal.seal(number, last, chunk)


class _Raw(io.RawIOBase):
    """A file chunk by chunk; `io.BufferedReader` makes the rest of it."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self._at = 0
        self._number = -1
        self._chunk = b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "memoryview[int] | bytearray") -> int:  # type: ignore[override]  # any buffer
        if self._at >= self._file.size or not len(buffer):
            return 0
        number, within = divmod(self._at, CHUNK_BYTES)
        if number != self._number:
            self._number, self._chunk = number, self._file.chunk_now(number)
        found = memoryview(self._chunk)[within : within + len(buffer)]
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)


def _last(size: int) -> int:
    """The number of the last chunk: an empty file has one, too."""
    return max(0, (size - 1) // CHUNK_BYTES)


def _numbers(start: int, end: int) -> range:
    """The chunks that hold the bytes from `start` up to `end`."""
    return range(start // CHUNK_BYTES, (end - 1) // CHUNK_BYTES + 1) if end > start else range(0)
