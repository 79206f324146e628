"""An import in a process of its own: `python -m services.customers.imports.child`, told what to do on its input.

It gives way to others, and dies with the process that started it.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import pickle
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any, BinaryIO
from uuid import UUID

import orjson
import uvloop

from libs import logs
from libs.caller import Caller, acting_as
from libs.config import Settings
from libs.jobs import Job, JobCancelled, LeaseLost
from libs.outages import is_passing
from libs.problems import Problem
from libs.run.service import at_work
from services.customers.imports.points import Giving, Taking
from services.customers.imports.rules import BALANCES
from services.customers.imports.undoing import Undoing
from services.customers.imports.work import Work

NICE = 10
# A chunk makes some 100,000 objects that go by their counts: looking for cycles among them is a third of the work.
_GC = (100_000, 10, 100)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Task:
    """What the child does, and as whom. `job` are the fields of a Job, `token` its lease."""

    settings: Settings
    caller: Caller
    job: dict[str, Any]
    token: UUID
    undo: bool
    parent: int

    def pack(self) -> bytes:
        """For the child's input: a length and the task."""
        content = pickle.dumps(self)
        return len(content).to_bytes(8) + content


def main() -> None:
    """Does the task that comes on standard input; says on standard output how it ended."""
    told, says = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    task: Task = pickle.loads(told.read(int.from_bytes(told.read(8))))  # noqa: S301 – from our own process
    _die_with(task.parent, told)
    with contextlib.suppress(OSError):
        os.nice(NICE)
    sys.setswitchinterval(0.001)  # the event loop waits no longer for the thread that reads
    logs.set_up(task.settings.log_level)
    gc.freeze()
    gc.set_threshold(*_GC)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, and through it us
    says.write(orjson.dumps(uvloop.run(_done(task))) + b"\n")
    says.flush()
    logging.shutdown()
    os._exit(0)  # the thread that waits for the parent to die has standard input still open


async def _done(task: Task) -> dict[str, object]:
    async with at_work("customers", task.settings) as rt:
        job = Job(**task.job, _db=rt.db, _token=task.token)
        with acting_as(task.caller):
            brought = job.input.get("kind") == BALANCES
            undoing, doing = (Taking, Giving) if brought else (Undoing, Work)
            work = undoing(rt, job) if task.undo else doing(rt, job)
            moving = asyncio.create_task(rt.audit.run())
            try:
                await work.run()
            except JobCancelled:
                return {"end": "cancelled"}
            except LeaseLost:
                return {"end": "lost"}
            except Problem as problem:
                passing = is_passing(problem)
                return {
                    "end": "waits" if passing else "refused",
                    "reason": problem.reason,
                    "message": problem.message,
                }
            except Exception as error:
                if not is_passing(error):
                    raise
                return {"end": "waits", "reason": "UNAVAILABLE", "message": type(error).__name__}
            finally:
                moving.cancel()
                await asyncio.gather(moving, return_exceptions=True)
    return {"end": "done"}


def _die_with(parent: int, told: BinaryIO) -> None:
    """Ends this process as soon as the one that started it has ended."""
    with contextlib.suppress(OSError, AttributeError):  # Linux only
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)

    def wait() -> None:
        told.read()  # returns when the other end is closed
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
