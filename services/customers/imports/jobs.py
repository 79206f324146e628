"""Imports in the background: a child process for each, started again where it stopped if it dies."""

import asyncio
import logging
import os
import sys
from dataclasses import fields
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import select

from libs import caller as callers
from libs import config
from libs.caller import Caller, acting_as
from libs.jobs import INTERNAL, Job, JobCancelled, LeaseLost
from libs.problems import Code, Problem, Unavailable
from libs.run.service import Runtime
from libs.timers import Periodic
from services.customers.imports import actions
from services.customers.imports.child import Task
from services.customers.imports.tables import imports

log = logging.getLogger(__name__)

ROWS_AT_ONCE = 5_000
DEATHS = 5  # in a row without a row in between


class ChildDied(Exception):
    """The process that did an import ended without a word."""


async def run_import(rt: Any, job: Job) -> None:
    """Does an import; one that cannot be done is given up with the reason."""
    await _run(rt, job, undo=False)


async def undo_import(rt: Any, job: Job) -> None:
    """Takes an import back."""
    await _run(rt, job, undo=True)


async def _run(rt: Runtime, job: Job, *, undo: bool) -> None:
    deaths, at = 0, -1
    while True:
        try:
            end = await _in_child(rt, job, undo=undo)
        except ChildDied:
            now = await _progress(rt, job)
            deaths, at = (1, now) if now > at else (deaths + 1, at)
            if deaths >= DEATHS:
                await _last(rt, job, undo=undo)
                raise
            log.warning("An import's process died; another goes on", extra={"job": str(job.id)})
            continue
        match end["end"]:
            case "done":
                return
            case "cancelled":
                raise JobCancelled
            case "lost":
                raise LeaseLost
            case "waits":
                raise Unavailable(end["message"])
            case _:
                if not undo:
                    async with rt.db.tx() as tx:
                        await actions.fail_import(tx, UUID(job.input["import"]), end["reason"])
                raise _problem(end["reason"], end["message"])


async def _last(rt: Runtime, job: Job, *, undo: bool) -> None:
    """Gives an import up if its job, which is about to fail, is not tried again."""
    if job.attempts >= actions.MOST_TRIES and not undo:
        async with rt.db.tx() as tx:
            await actions.fail_import(tx, UUID(job.input["import"]), INTERNAL)


async def _progress(rt: Runtime, job: Job) -> int:
    """How far the work is, to tell one that goes on from one that dies at the same place again."""
    async with rt.db.read() as tx:
        wanted = select(imports.c.last_row, imports.c.version).where(
            imports.c.tenant_id == tx.tenant_id, imports.c.import_id == UUID(job.input["import"])
        )
        row = (await tx.execute(wanted)).one()
    return int(row.last_row) + int(row.version)


async def _in_child(rt: Runtime, job: Job, *, undo: bool) -> dict[str, str]:
    """What the child said at its end. Raises ChildDied. It dies with us."""
    known = {f.name: getattr(job, f.name) for f in fields(Job) if not f.name.startswith("_")}
    task = Task(rt.settings, callers.current(), known, job._token, undo, os.getpid())
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "services.customers.imports.child"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**config.process_environment(), "PYTHONPATH": f"{config.ROOT}:{config.ROOT / 'gen'}"},
        cwd=config.ROOT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        try:
            child.stdin.write(task.pack())
            await child.stdin.drain()
            said = await child.stdout.read()
        except (BrokenPipeError, ConnectionResetError, RuntimeError):  # uvloop: the pipe is closed already
            said = b""
        await child.wait()
    finally:
        if child.returncode is None:
            child.kill()
            await asyncio.shield(child.wait())
    if child.returncode or not said:
        raise ChildDied
    found: dict[str, str] = orjson.loads(said)
    return found


def _problem(reason: str, message: str) -> Problem:
    """The refusal that the child met."""
    kind: type[Problem] = type(
        "ImportRefused", (Problem,), {"code": Code.FAILED_PRECONDITION, "reason": reason, "message": message}
    )
    return kind()


JOBS = {actions.RUN: run_import, actions.UNDO: undo_import}


async def forget_rows(rt: Any) -> None:
    """Forgets what every tenant's imports kept to be undone, once they cannot be."""
    runtime: Runtime = rt
    for tenant in await runtime.tenants.all():
        itself = Caller(
            tenant_id=tenant.tenant_id, subject=runtime.name, kind="service", service=runtime.name
        )
        with acting_as(itself):
            forgotten = ROWS_AT_ONCE
            while forgotten == ROWS_AT_ONCE:
                async with runtime.db.tx() as tx:
                    forgotten = await actions.forget_rows(tx, ROWS_AT_ONCE)


PERIODIC = [Periodic("forget rows of imports", timedelta(hours=6), forget_rows)]
