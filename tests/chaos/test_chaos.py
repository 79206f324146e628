"""kill -9, of everything, while customers are created and changed: what was acknowledged is there, once.

CHAOS_SECONDS makes it longer than one round of kills (`make chaos`).
"""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs import config
from libs.ids import new_id
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.jobs_pb2_grpc import JobsServiceStub
from regulars.type.v1 import job_pb2
from tests.chaos import checker
from tests.chaos.luck import BETWEEN, bad_luck
from tests.chaos.machine import SUPERVISOR, running
from tests.chaos.workload import Workload, open_business
from tests.flows.looking import rows
from tests.platform import Stack, TenantOfTest
from tests.scan.sentinels import Sentinels

ROTATED = "customers"  # killed first, in the middle of a rotation
ROUNDS: list[tuple[str, ...]] = [
    (ROTATED,),
    ("loyalty",),
    ("nats",),
    ("postgres",),
    ("gateway",),
    ("redis",),
    ("customers", "postgres"),
    ("loyalty", "nats"),
    ("everything",),
    (SUPERVISOR,),
]


async def test_what_was_acknowledged_is_there_once_whatever_is_killed(
    pytestconfig: pytest.Config, sentinels: Sentinels
) -> None:
    seconds = float(config.process_environment().get("CHAOS_SECONDS", "0"))
    async with running(Path(sentinels.root), "chaos") as machine:
        stack = machine.stack()
        tenant = await stack.new_tenant()
        shop = await open_business(tenant)
        work = Workload(stack, tenant, shop, sentinels)
        working = asyncio.create_task(work.run())
        try:
            await work.more(BETWEEN)
            job = await rotate(tenant)
            await bad_luck(machine, work, ROUNDS, seconds)
        finally:
            work.stop.set()
            await working
        await machine.until_healthy()
        await checker.until_quiet(stack, tenant)
        assert await succeeded(tenant, job)
        assert await versions(stack, tenant) == ({2}, {2})
        assert await checker.faults(stack, tenant, shop, work.people) == []
        await checker_sees(stack, tenant, shop, work)
        await stack.close()
    print(
        f"{work.acknowledged} calls acknowledged, {work.repeats} sent again, {work.duels} duels, "
        f"{len(work.people)} customers"
    )
    assert work.repeats > 0, "nothing was interrupted at all"


async def checker_sees(stack: Stack, tenant: TenantOfTest, shop: str, work: Workload) -> None:
    """A lost customer, a lost change and a customer too many are faults to it."""
    lost, changed, doubled = list(work.people.values())[:3]
    people = {**work.people, changed.id: replace(changed, version=changed.version + 1)}
    del people[doubled.id]
    nobody = str(new_id())
    people[nobody] = replace(lost, id=nobody)
    told = "\n".join(await checker.faults(stack, tenant, shop, people))
    for wanted in (
        f"customer {nobody} is lost",
        f"customer {changed.id} is at version {changed.version}",
        f"no event of {(changed.id, changed.version + 1)}",
        f"an event of {(doubled.id, 1)}, which never was",
        f"customers: {doubled.id} is nobody's",
        f"a membership of {doubled.id} too many",
        f"no membership of {nobody}",
    ):
        assert wanted in told


async def rotate(tenant: TenantOfTest) -> str:
    """Begins a rotation of the tenant's keys; gives its job once it runs."""
    admin: Any = tenant.calls(CustomersServiceStub, "platform")
    job: str = (await admin.RotateKeys(pb.RotateKeysRequest())).job_id
    async with asyncio.timeout(20):
        while await state(tenant, job) != job_pb2.JOB_STATE_RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return job


async def state(tenant: TenantOfTest, job: str) -> int:
    """State of a job."""
    jobs: Any = tenant.calls(JobsServiceStub)
    found: int = (await jobs.GetJob(job_pb2.GetJobRequest(id=job))).state
    return found


async def succeeded(tenant: TenantOfTest, job: str) -> bool:
    """Whether a job comes to a good end. One whose process was killed is taken over when its lease ends."""
    async with asyncio.timeout(checker.QUIET_SECONDS):
        while (now := await state(tenant, job)) in {job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING}:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return now == job_pb2.JOB_STATE_SUCCEEDED


async def versions(stack: Stack, tenant: TenantOfTest) -> tuple[set[int], set[int]]:
    """Versions of the keys that identifiers and data keys need."""
    found = []
    for table, column in (("customer_identifiers", "key_version"), ("subject_keys", "epoch")):
        query = f"select distinct {column} as v from customers.{table} where tenant_id = %s"
        found.append({row["v"] for row in await rows(stack, query, tenant.id)})
    return found[0], found[1]
