"""Tiers are set by hand for a list or a segment: each member once, whoever is not there is told, nothing is stopped."""

from typing import Any
from uuid import UUID

import grpc
import pytest
from sqlalchemy import update

from libs import clock
from libs.caller import Caller, acting_as
from libs.ids import new_id
from libs.instants import stamp
from libs.jobs import Job, LeaseLost
from libs.plumbing import jobs as table
from regulars.loyalty.v1 import tiers_pb2 as pb
from regulars.loyalty.v1.loyalty_pb2_grpc import JobsServiceStub
from regulars.type.v1 import job_pb2
from services.loyalty.overrides.jobs import override_tiers
from tests.customers.shop import Shop, refused
from tests.loyalty import test_segments
from tests.loyalty.members import buy, has, in_ledger, join, until
from tests.loyalty.test_tiers import configure, ladder, member_of, stands, tiers

STEPS = ladder(("BRONZE", 0), ("SILVER", 100), ("GOLD", 1_000))


async def bulk(shop: Shop, **fields: Any) -> job_pb2.Job:
    """A bulk override, once its job has ended."""
    fields.setdefault("reason", "a fair")
    started = await tiers(shop).OverrideTiers(pb.OverrideTiersRequest(**fields))

    async def ended() -> Any:
        job = await shop.calls(JobsServiceStub).GetJob(job_pb2.GetJobRequest(id=started.id))
        return job if job.HasField("finished_at") else None

    found: job_pb2.Job = await until(ended)
    return found


async def told(shop: Shop, customer_id: str) -> list[tuple[str, str, str, str]]:
    answer = await tiers(shop).ListTierHistory(pb.ListTierHistoryRequest(customer_id=customer_id))
    return [(each.from_tier, each.to_tier, each.reason, each.actor.subject) for each in answer.changes]


async def test_a_list_is_set_and_ended_each_member_once(shop: Shop) -> None:
    await configure(shop, STEPS)
    members = [await join(shop) for _ in range(3)]
    await buy(shop, members[0], 20_000)
    await has(shop, members[0], 200)
    stranger, later = str(new_id()), stamp(clock.now().replace(year=2040))
    wanted = {"ids": [*members, members[0], stranger], "tier": "gold", "until": later}
    job = await bulk(shop, **wanted, request_id="once")
    assert (job.state, job.progress_done, job.progress_total) == (job_pb2.JOB_STATE_SUCCEEDED, 4, 4)
    assert (await bulk(shop, **wanted, request_id="once")).id == job.id
    again = await bulk(shop, **wanted)
    assert again.id != job.id
    for member in members:
        found = (await member_of(shop, member)).tier
        assert (found.tier, found.overridden, found.override_until) == ("GOLD", True, later)
    assert await told(shop, members[1]) == [("BRONZE", "GOLD", "a fair", "tester")]
    page = await tiers(shop).ListTierOverrideFaults(pb.ListTierOverrideFaultsRequest(job_id=job.id))
    assert [(each.customer_id, each.reason) for each in page.faults] == [(stranger, "MEMBERSHIP_NOT_FOUND")]
    await bulk(shop, ids=members[:2], clear=True, reason="the fair is over")
    await stands(shop, members[0], "SILVER")
    await stands(shop, members[1], "BRONZE")
    assert (await told(shop, members[1]))[0] == ("GOLD", "BRONZE", "the fair is over", "tester")
    assert (await member_of(shop, members[2])).tier.overridden


async def test_a_segment_is_set_and_a_list_beside_it(shop: Shop) -> None:
    inside, listed, outside = [await join(shop) for _ in range(3)]
    segment = str(new_id())
    await test_segments.place(shop, segment, inside)
    job = await bulk(shop, segment_id=segment, ids=[listed], tier="GOLD")
    assert (job.progress_done, job.progress_total) == (2, 2)
    found = [(await member_of(shop, each)).tier.tier for each in (inside, listed, outside)]
    assert found == ["GOLD", "GOLD", "BRONZE"]


async def test_a_job_that_begins_again_does_nobody_twice_and_one_that_was_taken_over_nobody(
    shop: Shop,
) -> None:
    members = [await join(shop) for _ in range(2)]
    done = await bulk(shop, ids=members, tier="GOLD")
    runtime = shop.tenant.stack.runtimes["loyalty"]
    token = new_id()

    async def begin_again(state: str) -> Job:
        """The job as a process has it that claimed it."""
        mine = (table.c.tenant_id == shop.tenant.id, table.c.id == UUID(done.id))
        held = update(table).where(*mine).values(state=state, lease_token=token).returning(*table.c)
        row = (await in_ledger(shop, lambda tx: tx.execute(held))).one()
        plain = {name: row._mapping[name] for name in ("id", "tenant_id", "kind", "business_id", "input")}
        return Job(
            **plain,
            checkpoint={},
            done=0,
            total=2,
            attempts=2,
            created_by=row.created_by,
            _db=runtime.db,
            _token=token,
        )

    itself = Caller(tenant_id=shop.tenant.id, subject="loyalty", kind="service", service="loyalty")
    job = await begin_again("succeeded")
    with acting_as(itself):
        await override_tiers(runtime, job)
    assert job.done == 2
    for member in members:
        assert await told(shop, member) == [("BRONZE", "GOLD", "a fair", "tester")]
        await tiers(shop).ClearTierOverride(pb.ClearTierOverrideRequest(customer_id=member))
    job = await begin_again("succeeded")
    token = new_id()
    await begin_again("succeeded")
    with acting_as(itself), pytest.raises(LeaseLost):
        await override_tiers(runtime, job)
    assert [(await member_of(shop, each)).tier.tier for each in members] == ["BRONZE", "BRONZE"]


async def test_what_is_asked_for_must_make_sense(shop: Shop) -> None:
    one: dict[str, Any] = {"ids": [str(new_id())], "tier": "GOLD", "reason": "x"}
    for changes, field in (
        ({"ids": []}, "ids"),
        ({"reason": " "}, "reason"),
        ({"tier": ""}, "tier"),
        ({"clear": True}, "tier"),
        ({"tier": "", "clear": True, "until": stamp(clock.now())}, "until"),
        ({"until": stamp(clock.now())}, "until"),
        ({"ids": [str(new_id())] * 10_001}, "ids"),
    ):
        wrong = pb.OverrideTiersRequest(**(one | changes))
        assert field in (await refused(tiers(shop).OverrideTiers(wrong))).fields
    refusal = await refused(tiers(shop).OverrideTiers(pb.OverrideTiersRequest(**(one | {"tier": "TIN"}))))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TIER_NOT_FOUND")
    unknown = pb.ListTierOverrideFaultsRequest(job_id=str(new_id()))
    assert (await refused(tiers(shop).ListTierOverrideFaults(unknown))).reason == "JOB_NOT_FOUND"
