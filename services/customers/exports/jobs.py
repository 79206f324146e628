"""Exports to files, in the background."""

import asyncio
from datetime import timedelta
from typing import Any

from libs import caller as callers
from libs.caller import Caller, acting_as
from libs.jobs import Job, JobCancelled, LeaseLost
from libs.run.service import Runtime
from libs.timers import Periodic
from regulars.customers.v1 import exports_pb2 as pb
from services.customers.businesses import queries as businesses
from services.customers.exports import actions, queries, wire
from services.customers.exports.contents import Contents
from services.customers.exports.walk import Walk, Wanted
from services.customers.exports.writing import writer_of

# Customers of one piece: what is done again after a process died.
PIECE = 50_000
# Bytes of one piece: a bound for what must not happen.
MOST_BYTES = 4 << 30


async def export_customers(rt: Any, job: Job) -> None:
    """Writes an export's file piece by piece, each sealed and kept with the checkpoint behind it.

    The pieces in their order are the file. A try goes on after the last of them.
    """
    runtime: Runtime = rt
    try:
        wanted = await _wanted(runtime, job)
        at = dict(job.checkpoint)
        while not at.get("finished"):
            at = await _piece(runtime, job, wanted, at)
    except JobCancelled:
        async with runtime.db.tx() as tx:
            await actions.drop(tx, runtime.files, job.id)
            await actions.stop(tx, job.id, pb.EXPORT_STATE_CANCELLED, job.done)
        raise


async def _piece(rt: Runtime, job: Job, wanted: Wanted, at: dict[str, Any]) -> dict[str, Any]:
    """Writes one more piece after the checkpoint `at`; gives the checkpoint behind it."""
    walk = Walk(rt, wanted, at.get("position"))
    writer = writer_of(wanted.form, wanted.columns, wire.in_order(wanted, wanted.masked), at.get("writer"))
    contents = Contents(walk, writer, at.get("customers", 0))

    async def told() -> None:
        await job.progress(contents.customers)  # also where a cancellation is noticed

    number = at.get("pieces", 0)
    parts = contents.parts(first=not number, most=PIECE, told=told)
    written = await rt.files.write("export", parts, MOST_BYTES)
    after = {
        "position": walk.position,
        "writer": writer.state,
        "customers": contents.customers,
        "pieces": number + 1,
        "finished": walk.finished,
    }
    try:
        async with rt.db.tx() as tx:
            await actions.add_piece(tx, rt.files, job.id, number, written, contents.customers)
            if walk.finished:
                await actions.complete(tx, job.id, contents.customers)
            await job.save(tx, after, done=contents.customers)
    except (JobCancelled, LeaseLost):  # of other failures nobody knows whether the commit came through
        await asyncio.shield(rt.files.discard(written))
        raise
    return after


async def _wanted(rt: Runtime, job: Job) -> Wanted:
    """What the export holds, for who asked for it."""
    keys = rt.keys.for_tenant(callers.current().tenant())
    with rt.audit.reading("user.content") as reading:
        async with rt.db.read() as tx:
            known = await queries.one(tx, keys, reading, job.id)
            business = await businesses.business(tx, known.row.business_id)
            definitions = await businesses.definitions(tx, business.business_id)
        reading.only(())
    search, row = wire.search_of(known.search), known.row
    return wire.wanted(business, row.format, search, row.columns, definitions, frozenset(row.masks))


async def stop_lost(rt: Any) -> None:
    """Ends, in every tenant, the streams whose processes died with them."""
    runtime: Runtime = rt
    for tenant in await runtime.tenants.all():
        itself = Caller(
            tenant_id=tenant.tenant_id, subject=runtime.name, kind="service", service=runtime.name
        )
        with acting_as(itself):
            async with runtime.db.tx() as tx:
                await actions.stop_lost(tx, tx.now - wire.STREAM_AT_MOST)


JOBS = {actions.JOB: export_customers}
PERIODIC = [Periodic("end lost streams of exports", timedelta(hours=1), stop_lost)]
