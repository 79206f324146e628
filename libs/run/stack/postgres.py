"""PostgreSQL from the wheel's binaries, with a user, passwords and logs of our own making."""

import hashlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from libs.run.stack import binaries
from libs.run.stack.faults import BadConfiguration, DataTooNew, ProgramMissing
from libs.run.stack.home import Home
from libs.run.stack.process import Program

ADMIN = "postgres"
OLDEST = 150_000
# Where data goes that PostgreSQL's own user could not reach under the home directory.
ELSEWHERE = Path("/var/lib/regulars")
FIRST_UID = 64_200

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    # For the indexes of a million customers: with less an import writes them out again and again.
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Errors and statements may show what people wrote (decision 15): only LOG, FATAL and PANIC are kept.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_checkpoints": "off",
    "logging_collector": "off",
}
# For tests: survives the death of its processes, but not of the machine.
FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server keeps its data, whose programs it runs, and as which user (None: as we are)."""

    data: Path
    programs: Path
    uid: int | None


def prepare(home: Home, *, durable: bool = True) -> tuple[Program, str]:
    """Makes the data directory if there is none; gives the program to run and its admin address.

    Raises ProgramMissing, DataTooNew, BadConfiguration.
    """
    home.prepare()
    place = _place(home)
    password = home.secret("postgres")
    if not (place.data / "PG_VERSION").exists():
        _make_data(place, password, durable)
    _check_version(place)
    port = home.private_port("postgres")
    settings = {**SETTINGS, "port": str(port), **({} if durable else FORGETFUL)}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    url = f"postgresql://{ADMIN}:{password}@127.0.0.1:{port}/postgres"

    async def healthy() -> bool:
        return await answers(url)

    program = Program(
        name="postgres",
        kind="server",
        argv=(str(place.programs / "bin" / "postgres"), "-D", str(place.data), *options),
        env={"LC_ALL": "C", "PATH": os.defpath},
        cwd=place.data,
        log=home.log_file("postgres"),
        address=f"127.0.0.1:{port}",
        healthy=healthy,
        uid=place.uid,
        stop_signal=signal.SIGINT,
        grace_seconds=30,
    )
    return program, url


async def answers(url: str) -> bool:
    """Whether the server at `url` takes queries."""
    try:
        connection = await psycopg.AsyncConnection.connect(url, connect_timeout=2, autocommit=True)
    except psycopg.OperationalError:
        return False
    async with connection:
        return True


async def check(url: str) -> None:
    """Refuses a server that we cannot use. Raises BadConfiguration."""
    try:
        connection = await psycopg.AsyncConnection.connect(url, connect_timeout=5, autocommit=True)
    except psycopg.Error as error:
        reason = type(error).__name__
        raise BadConfiguration(f"REGULARS_POSTGRES_URL: no connection ({reason}).") from None
    async with connection:
        if connection.info.server_version < OLDEST:
            raise BadConfiguration("REGULARS_POSTGRES_URL: PostgreSQL 15 or newer is needed.")


def discard(home: Home) -> None:
    """Removes data that is kept outside the home directory."""
    place = elsewhere(home)
    if place.exists():
        shutil.rmtree(place)


def elsewhere(home: Home) -> Path:
    """The directory for a home that PostgreSQL's user cannot reach."""
    return ELSEWHERE / hashlib.sha256(str(home.root.resolve()).encode()).hexdigest()[:16]


def _place(home: Home) -> Place:
    programs = binaries.postgres_prefix()
    inside = home.root.resolve() / "postgres"
    if os.geteuid() != 0:
        if inside.exists() and inside.stat().st_uid != os.geteuid():
            message = (
                f"{inside} belongs to another user: start as that user or as root, or set REGULARS_HOME."
            )
            raise BadConfiguration(message)
        if not _has_name(os.geteuid()):
            message = (
                f"PostgreSQL's initdb wants a user with a name, and {os.geteuid()} is not in /etc/passwd."
            )
            raise BadConfiguration(message)
        return Place(inside, programs, None)
    base = elsewhere(home)
    uid = (
        next((d.stat().st_uid for d in (inside, base / "postgres") if d.exists()), 0) or _unprivileged_user()
    )
    if _reaches(uid, home.root.resolve()):
        base = home.root.resolve()
    else:
        for directory in (ELSEWHERE, base):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o711)
    return Place(base / "postgres", _runnable(programs, base, uid), uid)


def _unprivileged_user() -> int:
    """The user that PostgreSQL becomes when we are root: `regulars` if it exists, else an id nobody has."""
    try:
        return pwd.getpwnam("regulars").pw_uid
    except KeyError:
        taken = {user.pw_uid for user in pwd.getpwall()}
        return next(uid for uid in range(FIRST_UID, FIRST_UID + 1000) if uid not in taken)


def _reaches(uid: int, directory: Path) -> bool:
    """Whether a user may pass through a directory and all above it."""
    for step in (directory, *directory.parents):
        found = step.stat()
        bit = 0o100 if found.st_uid == uid else 0o010 if found.st_gid == uid else 0o001
        if not found.st_mode & bit:
            return False
    return True


def _runs(uid: int, programs: Path) -> bool:
    try:
        tried = _as_user(uid, [str(programs / "bin" / "initdb"), "--version"])
    except PermissionError:
        return False
    return tried.returncode == 0


def _runnable(programs: Path, base: Path, uid: int) -> Path:
    """The programs, or a copy of them if the user cannot reach (or read) them where they are."""
    if _runs(uid, programs):
        return programs
    wheel = programs.parent
    copies = base / "programs"
    copy = copies / wheel.name / programs.name
    if not _runs(uid, copy) if copy.exists() else True:
        shutil.rmtree(copies, ignore_errors=True)
        shutil.copytree(programs, copy, symlinks=True)
        libraries = wheel.with_name(wheel.name + ".libs")  # where wheels keep the libraries they share
        if libraries.exists():
            shutil.copytree(libraries, copies / libraries.name, symlinks=True)
        for path in (copies, *copies.rglob("*")):
            if not path.is_symlink():
                path.chmod(
                    path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444)
                )
    if not _runs(uid, copy):
        raise ProgramMissing(
            f"PostgreSQL from the wheel cannot be run as user {uid} (tried {programs} and {copy})."
        )
    return copy


def _as_user(
    uid: int | None, argv: Sequence[str], gid: int | None = None
) -> subprocess.CompletedProcess[str]:
    group = gid if gid is not None else uid
    return subprocess.run(  # noqa: S603 – the wheel's own programs
        list(argv),
        env={"LC_ALL": "C", "PATH": os.defpath},
        cwd="/",
        user=uid,
        group=group,
        extra_groups=None if uid is None else [],
        capture_output=True,
        text=True,
        check=False,
    )


def _make_data(place: Place, password: str, durable: bool) -> None:
    """Runs initdb beside the final place and moves the result there: no half-made directory is ever used.

    initdb insists on a user with a name. If ours has none, a named one runs it inside a directory that only
    our group can enter, and hands the files over.
    """
    workshop = place.data.with_name("postgres.new")
    shutil.rmtree(workshop, ignore_errors=True)
    fresh, password_file = workshop / "data", workshop / "password"
    workshop.mkdir(mode=0o700)
    fresh.mkdir(mode=0o700)
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    runner = place.uid
    if place.uid is not None:
        runner = place.uid if _has_name(place.uid) else _named_user()
        os.chown(workshop, 0, place.uid)
        workshop.chmod(0o710)
        for path in (fresh, password_file):
            os.chown(path, runner, place.uid)
    command = [
        str(place.programs / "bin" / "initdb"),
        *("-D", str(fresh), "-U", ADMIN, f"--pwfile={password_file}", "-A", "scram-sha-256", "-E", "UTF8"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        *("--no-instructions", *(() if durable else ("--no-sync",))),
    ]
    done = _as_user(runner, command, place.uid)
    if done.returncode != 0:
        shutil.rmtree(workshop)
        raise ProgramMissing(f"PostgreSQL's initdb failed: {done.stderr.strip()[-500:]}")
    if place.uid is not None:
        for path in (fresh, *fresh.rglob("*")):
            os.chown(path, place.uid, place.uid, follow_symlinks=False)
    fresh.rename(place.data)
    shutil.rmtree(workshop)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _named_user() -> int:
    """Any unprivileged user of this machine, `nobody` first."""
    users = sorted((u for u in pwd.getpwall() if u.pw_uid != 0), key=lambda u: u.pw_name != "nobody")
    if not users:
        message = (
            "PostgreSQL refuses to run as root, and this machine has no other user: add one named regulars."
        )
        raise BadConfiguration(message)
    return users[0].pw_uid


def _check_version(place: Place) -> None:
    data = int((place.data / "PG_VERSION").read_text())
    shown = _as_user(place.uid, [str(place.programs / "bin" / "postgres"), "--version"]).stdout
    program = int(shown.split()[-1].partition(".")[0])
    made = f"{place.data} was made by PostgreSQL {data}, and this is PostgreSQL {program}"
    if data > program:
        raise DataTooNew(f"{made}: use a newer Regulars, or start afresh elsewhere by REGULARS_HOME.")
    if data < program:
        remedy = "move the data with pg_dump or pg_upgrade, or start afresh elsewhere by REGULARS_HOME"
        raise BadConfiguration(f"{made}: {remedy}.")
