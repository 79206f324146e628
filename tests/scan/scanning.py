"""Looks for values in files and in Redis, in every form in which they may have been written."""

import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

CHUNK = 16 << 20
ALIGNMENTS = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """One place where a value was found, and the form that it had."""

    place: str
    offset: int
    form: str

    def __str__(self) -> str:
        return f"{self.place} at {self.offset}: {self.form}"


@dataclass(slots=True)
class Report:
    """What a scan found and how much it looked at."""

    hits: list[Hit] = field(default_factory=list)
    files: int = 0
    size: int = 0
    keys: int = 0

    def __str__(self) -> str:
        looked = f"{self.files} files of {self.size >> 20} MiB and {self.keys} keys of Redis"
        return f"{len(self.hits)} hits in {looked}"


def forms_of(value: str) -> dict[bytes, str]:
    """The forms of a value (ASCII), by the bytes in small letters; what is searched is put in small letters too."""
    forms: dict[bytes, str] = {}
    for text in dict.fromkeys((value.lower(), value.upper(), value.capitalize())):
        raw = text.encode("ascii")
        wide = text.encode("utf-16-le")[:-1]  # the bytes that both orders have in common
        forms[raw.lower()] = "text"
        forms[wide.lower()] = "UTF-16"
        forms[raw.hex().encode()] = "hex"
        for bytes_, of in ((raw, "text"), (text.encode("utf-16-le"), "UTF-16")):
            for shift in range(ALIGNMENTS):
                for encode in (base64.b64encode, base64.urlsafe_b64encode):
                    coded = encode(b"\0" * shift + bytes_)
                    inner = coded[-(-shift * 8 // 6) : (shift + len(bytes_)) * 8 // 6]
                    forms[inner.lower()] = f"base64 of {of}"
    return forms


def scan_bytes(place: str, data: bytes, patterns: Mapping[bytes, str], base: int = 0) -> Iterator[Hit]:
    """The first place of each pattern in `data`."""
    low = data.lower()
    for pattern, form in patterns.items():
        at = low.find(pattern)
        if at >= 0:
            yield Hit(place, base + at, form)


def scan_files(report: Report, roots: Iterable[Path], patterns: Mapping[bytes, str]) -> None:
    """Adds what is in the files under `roots`, and in their names. Files that vanish meanwhile are no matter."""
    overlap = max(map(len, patterns)) - 1
    for path in _files(roots):
        try:
            with path.open("rb") as file:
                report.files += 1
                report.hits.extend(scan_bytes(f"the name {path}", str(path).encode(), patterns))
                base, tail = 0, b""
                while chunk := file.read(CHUNK):
                    report.size += len(chunk)
                    report.hits.extend(scan_bytes(str(path), tail + chunk, patterns, base - len(tail)))
                    base, tail = base + len(chunk), chunk[-overlap:]
        except OSError:
            continue


def scan_redis(report: Report, url: str, patterns: Mapping[bytes, str]) -> None:
    """Adds what is in the keys and values of a Redis."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(count=1000):
            report.keys += 1
            for part in (key, *_values(client, key)):
                report.hits.extend(scan_bytes(f"Redis key {key!r}", part, patterns))


def _values(client: Any, key: bytes) -> list[bytes]:
    """Everything that one key holds."""
    match client.type(key):
        case b"string":
            return [client.get(key) or b""]
        case b"hash":
            return [part for pair in client.hgetall(key).items() for part in pair]
        case b"list":
            return list(client.lrange(key, 0, -1))
        case b"set":
            return list(client.smembers(key))
        case b"zset":
            return list(client.zrange(key, 0, -1))
        case b"none":
            return []
        case other:
            raise AssertionError(f"Redis has a key of type {other!r}, and nobody looks into those")


def _files(roots: Iterable[Path]) -> Iterator[Path]:
    for root in roots:
        if root.is_file():
            yield root
        for folder, _, names in os.walk(root):
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    yield path
