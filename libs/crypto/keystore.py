"""Tenant keys live outside every database: one private directory per service, one file per key version."""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol
from uuid import UUID

from libs import files
from libs.crypto.faults import CryptoFault, KeyDestroyed, KeyMissing
from libs.crypto.master import KEY_BYTES, MasterKeys
from libs.ids import parse_id


class Kind(StrEnum):
    """What a tenant key is for. Each kind has versions, counted from 1; the version of a KEK is its epoch."""

    KEK = "kek"  # wraps the subjects' data keys
    IDENTIFIER = "identifier"  # blind indexes of unique contact data
    SEARCH = "search"  # search tokens
    PAGE_TOKEN = "page_token"  # noqa: S105  # the name of a kind, no secret
    REQUEST_HASH = "request_hash"  # fingerprints of requests, for idempotency


class Keystore(Protocol):
    """What the service needs of whatever keeps its tenant keys: a directory, or a key management service.

    Calls block for the time of a few file operations; those that write are safe to repeat and to race.
    """

    def create_tenant(self, tenant_id: UUID) -> None:
        """Makes version 1 of each kind that never had a version. Changes nothing the second time."""

    def versions(self, tenant_id: UUID) -> Mapping[Kind, tuple[int, ...]]:
        """The live versions of each kind, ascending. Raises KeyMissing for a tenant never made here."""

    def key(self, tenant_id: UUID, kind: Kind, version: int) -> bytes:
        """The 32 bytes of one key. Raises KeyMissing, KeyDestroyed."""

    def add_version(self, tenant_id: UUID, kind: Kind, version: int) -> None:
        """Makes this version unless it exists. Raises KeyMissing (no tenant), KeyDestroyed (it was there)."""

    def destroy(self, tenant_id: UUID, kind: Kind, version: int) -> None:
        """Destroys one key for good; nobody can make this version again. Nothing happens the second time."""


class FolderKeystore:
    """A Keystore as files `<root>/<service>/<tenant>/<kind>.<version>`, wrapped by the master key.

    Directories are 0700 and files 0600. A file is written whole, synced, and linked to its name, so that of
    two processes one makes the key and both use it. An empty file is the mark of a destroyed version.
    """

    def __init__(self, root: Path, service: str, master: MasterKeys) -> None:
        """Raises CryptoFault if others than the owner may enter the directory and it cannot be changed."""
        self._service = service
        self._master = master
        self._root = root / service
        _make_private(root)
        _make_private(self._root)

    def create_tenant(self, tenant_id: UUID) -> None:
        """See Keystore."""
        folder = self._folder(tenant_id)
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_names(self._root)
        with self._alone(tenant_id):
            made = {kind for kind, _, _ in _files(folder)}
            for kind in Kind:
                if kind not in made:
                    self._make(tenant_id, kind, 1)

    def versions(self, tenant_id: UUID) -> Mapping[Kind, tuple[int, ...]]:
        """See Keystore."""
        try:
            found = _files(self._folder(tenant_id))
        except FileNotFoundError:
            raise KeyMissing(f"The keystore of {self._service} has no keys of tenant {tenant_id}.") from None
        live: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        for kind, version, size in found:
            if size:
                live[kind].append(version)
        return {kind: tuple(those) for kind, those in live.items()}

    def key(self, tenant_id: UUID, kind: Kind, version: int) -> bytes:
        """See Keystore. Raises CryptoFault too, if the file was changed or another master key wrapped it."""
        try:
            wrapped = self._path(tenant_id, kind, version).read_bytes()
        except FileNotFoundError:
            raise KeyMissing(f"No key {self._name(tenant_id, kind, version)} in the keystore.") from None
        if not wrapped:
            raise KeyDestroyed(f"Key {self._name(tenant_id, kind, version)} was destroyed.")
        return self._master.unwrap(wrapped, self._name(tenant_id, kind, version).encode())

    def add_version(self, tenant_id: UUID, kind: Kind, version: int) -> None:
        """See Keystore."""
        with self._alone(tenant_id):
            if not self._make(tenant_id, kind, version):
                raise KeyDestroyed(f"Key {self._name(tenant_id, kind, version)} was destroyed.")

    def destroy(self, tenant_id: UUID, kind: Kind, version: int) -> None:
        """See Keystore. The old bytes are overwritten too, as far as the file system lets a program do so."""
        path = self._path(tenant_id, kind, version)
        with self._alone(tenant_id):
            # A process that died while it wrote may have left a copy under a passing name.
            for copy in (path, *path.parent.glob(f".{path.name}.*")):
                _overwrite(copy)
            _replace(path, b"")
            for copy in path.parent.glob(f".{path.name}.*"):
                copy.unlink()

    def rewrap(self) -> int:
        """Wraps what older master keys wrapped by the current one; gives how many keys. Safe to repeat."""
        changed = 0
        for folder in sorted(self._root.iterdir()):
            tenant_id = parse_id(folder.name)
            if tenant_id is None:
                continue
            with self._alone(tenant_id):
                for kind, version, size in _files(folder):
                    wrapped = self._path(tenant_id, kind, version).read_bytes() if size else b""
                    if not wrapped or self._master.is_current(wrapped):
                        continue
                    name = self._name(tenant_id, kind, version).encode()
                    secret = self._master.unwrap(wrapped, name)
                    _replace(self._path(tenant_id, kind, version), self._master.wrap(secret, name))
                    changed += 1
        return changed

    def _make(self, tenant_id: UUID, kind: Kind, version: int) -> bytes:
        """Makes the file unless there is one; gives what is in it."""
        path = self._path(tenant_id, kind, version)
        name = self._name(tenant_id, kind, version).encode()
        found = files.read_or_create(path, lambda: self._master.wrap(os.urandom(KEY_BYTES), name))
        _sync_names(path.parent)
        return found

    def _folder(self, tenant_id: UUID) -> Path:
        return self._root / str(tenant_id)

    def _path(self, tenant_id: UUID, kind: Kind, version: int) -> Path:
        return self._folder(tenant_id) / f"{kind}.{version}"

    def _name(self, tenant_id: UUID, kind: Kind, version: int) -> str:
        """What a wrapped key is bound to: it opens under no other name."""
        return f"{self._service}/{tenant_id}/{kind}.{version}"

    @contextmanager
    def _alone(self, tenant_id: UUID) -> Iterator[None]:
        """Holds the tenant's directory: with one writer at a time nothing brings back what is destroyed."""
        try:
            held = os.open(self._folder(tenant_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise KeyMissing(f"The keystore of {self._service} has no keys of tenant {tenant_id}.") from None
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)


_KINDS = frozenset(kind.value for kind in Kind)


def _files(folder: Path) -> list[tuple[Kind, int, int]]:
    """Kind, version and size of each key file, by version; anything else in the directory is left alone."""
    found: list[tuple[Kind, int, int]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            kind, dot, version = entry.name.rpartition(".")
            if dot and version.isdecimal() and kind in _KINDS:
                found.append((Kind(kind), int(version), entry.stat().st_size))
    return sorted(found)


def _replace(path: Path, content: bytes) -> None:
    files.replace(path, content)
    _sync_names(path.parent)


def _sync_names(folder: Path) -> None:
    """Waits until the disk has the names in a directory."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _overwrite(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.pwrite(descriptor, bytes(os.fstat(descriptor).st_size), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_private(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        try:
            path.chmod(0o700)
        except PermissionError:
            raise CryptoFault(f"Others may enter {path}, and its mode cannot be changed.") from None
