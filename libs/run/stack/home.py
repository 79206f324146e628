"""The home directory of one stack: what it keeps, where, and who holds it."""

import fcntl
import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from libs.files import read_or_create, replace
from libs.run.stack.faults import AlreadyRunning

MAX_LOG_BYTES = 10_000_000
FIRST_PRIVATE_PORT, LAST_PRIVATE_PORT = 20_000, 32_000


@dataclass(frozen=True, slots=True)
class Home:
    """The paths of a stack under one directory; secrets are files that only their owner reads."""

    root: Path

    @property
    def logs(self) -> Path:
        """One file for each process, and the one before it."""
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Generated passwords and keys."""
        return self.root / "secrets"

    def prepare(self) -> None:
        """Makes the directories. For root, others may pass through: PostgreSQL then has a user of its own."""
        if not self.root.exists():
            self.root.mkdir(parents=True)
            self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for private in (self.logs, self.secrets):
            private.mkdir(mode=0o700, exist_ok=True)

    def secret(self, name: str) -> str:
        """A password of this stack, made at its first use."""
        return read_or_create(self.secrets / name, lambda: secrets.token_urlsafe(24).encode()).decode()

    def remember(self, **facts: Any) -> None:
        """Keeps facts that must stay the same from start to start."""
        self.prepare()
        replace(self.root / "state.json", json.dumps({**self.remembered(), **facts}, indent=1).encode())

    def remembered(self) -> dict[str, Any]:
        """What `remember` kept."""
        return _read_json(self.root / "state.json")

    def write_run(self, run: dict[str, Any]) -> None:
        """Notes which processes run, for `status`, for `down`, and for the start after a crash."""
        replace(self.root / "run.json", json.dumps(run, indent=1).encode())

    def read_run(self) -> dict[str, Any]:
        """What `write_run` noted last; empty after a clean stop."""
        return _read_json(self.root / "run.json")

    def clear_run(self) -> None:
        """Notes that nothing runs."""
        (self.root / "run.json").unlink(missing_ok=True)

    def private_port(self, name: str) -> int:
        """The free port for a server of this stack: the one it had before, unless somebody took it."""
        ports: dict[str, int] = self.remembered().get("ports", {})
        kept = ports.get(name)
        if kept is None or not port_is_free("127.0.0.1", kept):
            kept = ports[name] = free_port(set(ports.values()))
            self.remember(ports=ports)
        return kept

    def log_file(self, name: str) -> Path:
        """Where process `name` writes; a file that has grown past 10 MB is set aside first."""
        path = self.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.rename(path.with_suffix(".log.1"))
        if not path.exists():
            path.touch(mode=0o600)
        return path

    def hold(self) -> IO[str]:
        """Holds this directory for one supervisor, until the file is closed or the process ends.

        Raises AlreadyRunning.
        """
        self.prepare()
        file = (self.root / "lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            message = (
                f"A stack is already running in {self.root}. See `regulars status`, stop it: `regulars down`."
            )
            raise AlreadyRunning(message) from None
        return file

    def held(self) -> bool:
        """Whether a supervisor holds this directory now."""
        if not (self.root / "lock").exists():
            return False
        try:
            self.hold().close()
        except AlreadyRunning:
            return True
        return False


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `host`:`port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(besides: set[int]) -> int:
    """A port of this machine that nobody uses and that is not one of `besides`.

    It is below the ports that the system gives to outgoing connections: a client that keeps trying one of those
    while its server is away may be given that very port, and the server then finds it taken.
    """
    while True:
        port = FIRST_PRIVATE_PORT + secrets.randbelow(LAST_PRIVATE_PORT - FIRST_PRIVATE_PORT)
        if port not in besides and port_is_free("127.0.0.1", port):
            return port


def _read_json(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        return {}  # cut off by a full disk: everything in it can be found again
    return known if isinstance(known, dict) else {}
