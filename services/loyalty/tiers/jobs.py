"""What is done for tiers in the background: all members of a program are judged anew, and those that are due."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.jobs import Job
from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty import due
from services.loyalty.programs import queries as programs
from services.loyalty.tiers import actions, queries

RECALCULATE = "recalculate_tiers"
MEMBERS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class _Member:
    account_id: UUID
    program_id: UUID


async def recalculate(rt: Any, job: Job) -> None:
    """Judges all members of a program, a thousand in a transaction; goes on where it stopped."""
    runtime: Runtime = rt
    program_id = UUID(job.input["program_id"])
    while True:
        async with runtime.db.tx() as tx:
            after = job.checkpoint.get("after")
            found = await queries.accounts_after(
                tx, program_id, UUID(after) if after else None, MEMBERS_AT_ONCE
            )
            if not found:
                return
            program = programs.program_of(await programs.row(tx, program_id))
            members = [_Member(account_id, program_id) for account_id in found]
            await actions.judge_locked(tx, {program_id: program}, members, recalculating=True)
            await job.save(tx, {"after": str(found[-1])}, done=job.done + len(found))


async def judge_due(rt: Any) -> None:
    """Judges every tenant's members whose period, grace or override has ended."""
    await due.for_each(rt, await due.tenants(rt, "tiers"), _judge_due)


async def _judge_due(runtime: Runtime) -> None:
    more = True
    while more:
        async with runtime.db.tx() as tx:
            rows = await queries.due(tx, MEMBERS_AT_ONCE)
            of = {
                each: programs.program_of(await programs.row(tx, each))
                for each in {row.program_id for row in rows}
            }
            await actions.judge_locked(tx, of, rows)
            more = len(rows) == MEMBERS_AT_ONCE


JOBS = {RECALCULATE: recalculate}
PERIODIC = [Periodic("judge tiers", timedelta(minutes=5), judge_due)]
