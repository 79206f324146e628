"""Background work on customers: rotating a tenant's keys."""

import asyncio
from typing import Any
from uuid import UUID

from libs import jobs
from libs.crypto import Kind, live_versions
from libs.crypto.rotation import Progress, Rotation, rotation_of_epoch, step
from libs.db import Tx
from libs.jobs import Job
from libs.run.service import Runtime
from services.customers.profiles.rotation import rotation_of_identifiers
from services.customers.search.rotation import rotation_of_search

ROTATE_KEYS = "rotate_keys"


async def ask_for_rotation(tx: Tx) -> UUID:
    """Queues the rotation of all keys of the caller's tenant, away from today's versions; gives the job's id."""
    live = await live_versions(tx)
    leaving = {str(kind): live.current[kind] for kind in (Kind.KEK, Kind.IDENTIFIER, Kind.SEARCH)}
    return await jobs.enqueue(tx, ROTATE_KEYS, leaving, max_attempts=20)


async def rotate_keys(rt: Any, job: Job) -> None:
    """Rotates one kind of key after the other. Safe to run again: the state is in the rows."""
    runtime: Runtime = rt
    rotations = (
        rotation_of_identifiers(runtime.keys, runtime.audit, job.input[str(Kind.IDENTIFIER)]),
        rotation_of_search(runtime.keys, runtime.audit, job.input[str(Kind.SEARCH)]),
        rotation_of_epoch(runtime.keys, job.input[str(Kind.KEK)]),
    )
    for done, rotation in enumerate(rotations):
        await job.progress(done, len(rotations))
        await _rotate(runtime, job, rotation, done, len(rotations))
    await job.progress(len(rotations), len(rotations))


async def _rotate(rt: Runtime, job: Job, rotation: Rotation, done: int, total: int) -> None:
    progress: Progress | None = None
    while progress is None or not progress.done:
        grace = rt.settings.key_grace_seconds
        progress = await step(rt.db, rt.keys, rotation, progress, grace_seconds=grace)
        await job.progress(done, total)  # also where a cancellation is noticed
        await asyncio.sleep(progress.pause_seconds)


JOBS = {ROTATE_KEYS: rotate_keys}
