"""Tiers are set for many members in the background, some hundred in a transaction; goes on where it stopped."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.jobs import KEPT_FOR, Job
from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty import due
from services.loyalty.merges import queries as merges
from services.loyalty.overrides import actions, queries
from services.loyalty.programs import queries as programs
from services.loyalty.segments import queries as segments

OVERRIDE = "override_tiers"
MEMBERS_AT_ONCE = 500
_FIRST = str(UUID(int=0))


async def override_tiers(rt: Any, job: Job) -> None:
    """Sets or ends the overrides of a list's members, then of a segment's, or of whom they were merged into."""
    runtime: Runtime = rt
    while True:
        async with runtime.db.tx() as tx:
            bulk = await queries.bulk(tx, job.id)
            after = UUID(job.checkpoint.get("after", _FIRST))
            of_segment = bool(job.checkpoint.get("of_segment"))
            if of_segment:
                found = await segments.members_after(
                    tx, bulk.business_id, bulk.segment_id, after, MEMBERS_AT_ONCE
                )
                meant = sorted(set((await merges.survivors(tx, found)).values()))
            else:
                meant = found = await queries.listed_after(tx, job.id, after, MEMBERS_AT_ONCE)
            if found:
                program = programs.program_of(await programs.row(tx, bulk.program_id))
                await actions.override(tx, program, bulk, meant)
                here = {"after": str(found[-1]), "of_segment": of_segment}
                await job.save(tx, here, done=job.done + len(found))
            elif of_segment or bulk.segment_id is None:
                return
            else:
                await job.save(tx, {"after": _FIRST, "of_segment": True})


async def forget_lists(rt: Any) -> None:
    """Forgets every tenant's lists whose job is forgotten."""
    await due.for_each(rt, await due.everybody(rt), _forget_lists)


async def _forget_lists(runtime: Runtime) -> None:
    gone = 1
    while gone:
        async with runtime.db.tx() as tx:
            gone = await actions.clean(tx, KEPT_FOR, 10_000)


JOBS = {OVERRIDE: override_tiers}
PERIODIC = [Periodic("forget lists of overrides", timedelta(days=1), forget_lists)]
