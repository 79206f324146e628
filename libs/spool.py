"""Records that survive kill -9: appended to a file, moved on later, claimed by others if the process died."""

import fcntl
import logging
import os
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from struct import Struct

log = logging.getLogger(__name__)

_HEAD = Struct(">II")  # length and CRC-32 of the record that follows
_SUFFIX = ".spool"


class SpoolFull(Exception):
    """No room for another record: the limit is reached, or the disk is full."""


class Segment:
    """One closed file of records, held by this process until `done`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.finished = False
        self._descriptor = descriptor

    def records(self) -> Iterator[bytes]:
        """The records, oldest first. What a dying process wrote by half is left out; damage is set aside."""
        content = self.path.read_bytes()
        at = 0
        while at + _HEAD.size <= len(content):
            length, checksum = _HEAD.unpack_from(content, at)
            record = content[at + _HEAD.size : at + _HEAD.size + length]
            if len(record) < length:
                break  # torn by a kill: its read was never answered
            if zlib.crc32(record) != checksum:
                aside = self.path.with_suffix(".damaged")
                aside.write_bytes(content[at:])
                log.error("spool file is damaged; the rest is set aside", extra={"file": str(aside)})
                break
            yield record
            at += _HEAD.size + length

    def done(self) -> None:
        """Deletes the file: all its records have gone on."""
        self.path.unlink()
        os.close(self._descriptor)
        self.finished = True

    def let_go(self) -> None:
        """Leaves the file to whoever comes next."""
        os.close(self._descriptor)


class Spool:
    """Files `<name>-<pid>-<random>.spool` in one directory; a lock on each says that its process lives.

    `max_bytes` bounds what this process has waiting. Survives the death of the process, not of the machine.
    """

    def __init__(self, folder: Path, name: str, max_bytes: int) -> None:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._name = name
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._path, self._descriptor = self._new_file()
        self._size = 0
        self._waiting: list[Segment] = []

    @property
    def size_bytes(self) -> int:
        """What waits here to be moved on."""
        return self._size + sum(segment.size for segment in self._waiting if not segment.finished)

    def full(self) -> bool:
        """True if `append` would refuse."""
        return self.size_bytes >= self._max_bytes

    def append(self, record: bytes) -> None:
        """Adds one record; it is safe from kill -9 when this returns. Raises SpoolFull."""
        whole = _HEAD.pack(len(record), zlib.crc32(record)) + record
        with self._lock:
            if self.full():
                raise SpoolFull
            try:
                written = os.write(self._descriptor, whole)
            except OSError as fault:
                raise SpoolFull from fault
            if written < len(whole):
                os.ftruncate(self._descriptor, self._size)
                raise SpoolFull
            self._size += written

    def cut(self) -> list[Segment]:
        """What waits to be moved on, oldest first. Later records go to a new file.

        A segment that is not `done` is given again the next time; until then nothing new is cut.
        """
        with self._lock:
            self._waiting = [segment for segment in self._waiting if not segment.finished]
            if not self._waiting and self._size:
                self._waiting.append(Segment(self._path, self._descriptor))
                self._path, self._descriptor = self._new_file()
                self._size = 0
            return list(self._waiting)

    def claim(self) -> int:
        """Takes over the files of processes that died; gives how many."""
        mine = {self._path, *(segment.path for segment in self._waiting)}
        found = 0
        for path in sorted(self._folder.glob(f"{self._name}-*{_SUFFIX}")):
            if path in mine:
                continue
            descriptor = _held(path)
            if descriptor is not None:
                with self._lock:
                    self._waiting.insert(0, Segment(path, descriptor))
                found += 1
        return found

    def close(self) -> None:
        """Gives up this process's files; what is in them waits for the next process."""
        with self._lock:
            for segment in self._waiting:
                if not segment.finished:
                    segment.let_go()
            if not self._size:
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)

    def _new_file(self) -> tuple[Path, int]:
        path = self._folder / f"{self._name}-{os.getpid()}-{os.urandom(6).hex()}{_SUFFIX}"
        unseen = path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(unseen, flags, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unseen.rename(path)  # seen only once it is held
        return path, descriptor


def _held(path: Path) -> int | None:
    """A locked descriptor of a file that nobody holds; None if its process lives or the file is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if not os.fstat(descriptor).st_nlink:
        os.close(descriptor)
        return None
    return descriptor
