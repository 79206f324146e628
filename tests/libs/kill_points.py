"""Kills rotations at one line after the other, lets each go on, and says what is wrong afterwards.

A program of its own: it forks a process per kill, which a test with an event loop must not do.
"""

import asyncio
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

from libs.config import Settings
from libs.crypto import Kind, keystore, live_versions, rotation, tables, versions
from libs.crypto.rotation import rotate, rotation_of_epoch
from libs.ids import new_id
from tests.libs.rooms import Machine
from tests.libs.vaults import Vault, identifiers, opened

PEOPLE = 3
WATCHED = frozenset(module.__file__ for module in (rotation, keystore, versions))


def die_after(lines: int) -> None:
    """From now on this process is killed once it has run so many lines of the rotation."""
    left = lines

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


async def work(vault: Vault) -> None:
    """Both rotations, from version 1."""
    await rotate(vault.db, vault.keys, vault.rotation_of_identifiers(1, rows=2), grace_seconds=0)
    await rotate(vault.db, vault.keys, rotation_of_epoch(vault.keys, 1), grace_seconds=0)


async def prepare(vault: Vault) -> None:
    """People whose data is sealed and found by version 1."""
    for number in range(PEOPLE):
        await vault.add(f"p{number}@example.com")


async def check(vault: Vault) -> None:
    """Everybody is found and read, and nothing of version 1 is left."""
    for number in range(PEOPLE):
        email = f"p{number}@example.com"
        found = await vault.find(email)
        assert found is not None, f"{email} is not found"
        assert await vault.text_of(found) == email
    assert {row["key_version"] for row in await vault.rows(identifiers)} == {2}
    assert {row["epoch"] for row in await vault.rows(tables.subject_keys)} == {2}
    kept = vault.keystore.versions(vault.tenant_id)
    assert (kept[Kind.IDENTIFIER], kept[Kind.KEK]) == ((2,), (2,)), kept
    async with vault.db.read() as tx:
        live = await live_versions(tx)
    assert (live.written[Kind.IDENTIFIER], live.written[Kind.KEK], live.retiring) == ((2,), (2,), {})


def forked(run: Callable[[], Coroutine[Any, Any, None]], lines: int | None = None) -> int:
    """Runs in a process of its own; gives its wait status."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if lines is not None:
                die_after(lines)
            asyncio.run(run())
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitpid(child, 0)[1]


def killed_at(machine: Machine, schema: str, lines: int) -> bool:
    """Kills one tenant's rotation after so many lines and checks its end; False if it ended before that."""
    tenant_id, folder = new_id(), Path(tempfile.mkdtemp(dir=machine.settings.home))

    def run(what: Callable[[Vault], Coroutine[Any, Any, None]], die: int | None = None) -> int:
        async def opened_for() -> None:
            async with opened(machine, schema, tenant_id, folder) as vault:
                await what(vault)

        return forked(opened_for, die)

    assert run(prepare) == 0
    status = run(work, lines)
    killed = os.WIFSIGNALED(status)
    assert killed or status == 0, f"the rotation failed before line {lines}"
    assert run(work) == 0, f"killed after {lines} lines, the rotation does not go on"
    assert run(check) == 0, f"killed after {lines} lines, the end is wrong"
    return killed


def main(home: str, postgres_url: str, database: str, schema: str, stride: int) -> None:
    """Kills after `stride` lines, after twice as many, and so on, until a rotation ends by itself."""
    machine = Machine(
        Settings(home=Path(home), redis_url="", postgres_url=postgres_url, database=database), ""
    )
    lines, kills = 0, 0
    while killed_at(machine, schema, lines):
        lines, kills = lines + stride, kills + 1
    print(f"killed {kills} times, every {stride} lines of {lines}")


if __name__ == "__main__":
    home, url, database, schema, stride = sys.argv[1:]
    main(home, url, database, schema, int(stride))
