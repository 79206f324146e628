"""Zip archives that may be hostile: looked at before anything of them is unpacked."""

import struct
import zipfile
import zlib
from typing import BinaryIO

from services.customers.imports.reading.faults import FileBomb, FileDamaged, FileEncrypted

MAX_ENTRIES = 5_000
MAX_DIRECTORY = 4 * 1024 * 1024  # bytes of the archive's table of contents
MAX_UNPACKED = 4 * 1024**3  # bytes of all entries together
MAX_RATIO = 200  # unpacked to packed, of an entry above:
SMALL = 4 * 1024 * 1024  # bytes unpacked
_END, _END64 = b"PK\x05\x06", b"PK\x06\x06"
BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    struct.error,
    OSError,
    ValueError,
    KeyError,
)


def opened(file: BinaryIO) -> zipfile.ZipFile:
    """The archive. Raises FileDamaged, FileEncrypted, or FileBomb by what it says of itself."""
    _check_directory(file)
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    except (*BROKEN, RuntimeError, UnicodeError):
        raise FileDamaged from None
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES or sum(entry.file_size for entry in entries) > MAX_UNPACKED:
        raise FileBomb
    for entry in entries:
        if entry.flag_bits & 0x1:
            raise FileEncrypted
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileDamaged  # others may ask for any amount of memory, and no spreadsheet writes them
        if entry.file_size > SMALL and entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
            raise FileBomb
    return archive


def _check_directory(file: BinaryIO) -> None:
    """The table of contents is read as a whole, so its size is judged first."""
    size = file.seek(0, 2)
    length = min(size, 66_000)
    file.seek(size - length)
    tail = file.read(length)
    end = tail.rfind(_END)
    if end < 0 or len(tail) < end + 22:
        raise FileDamaged
    entries, directory = struct.unpack("<HI", tail[end + 10 : end + 16])
    large = tail.rfind(_END64)
    if large >= 0 and len(tail) >= large + 56:
        entries, directory = struct.unpack("<QQ", tail[large + 32 : large + 48])
    if entries > MAX_ENTRIES or MAX_DIRECTORY < directory < 0xFFFFFFFF:
        raise FileBomb
    if directory > size:
        raise FileDamaged


def check_whole(archive: zipfile.ZipFile, name: str) -> None:
    """Unpacks an entry without keeping it. Raises FileDamaged unless it is whole and as it says."""
    try:
        with archive.open(name) as stream:
            while stream.read(1024 * 1024):
                pass
    except (*BROKEN, RuntimeError):
        raise FileDamaged from None
