"""Small secret files that several processes may want to make at once."""

import os
from collections.abc import Callable
from pathlib import Path


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes the whole file or nothing; readers see the old or the new one."""
    fresh = _written(path, content, mode)
    fresh.rename(path)


def read_or_create(path: Path, make: Callable[[], bytes], mode: int = 0o600) -> bytes:
    """The file's content; if it is missing, `make` gives it. Of several makers at once the first one wins."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = _written(path, make(), mode)
    try:
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()


def _written(path: Path, content: bytes, mode: int) -> Path:
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return fresh
