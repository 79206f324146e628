"""Reports: the same before and after the ledger is folded into days, and what is in them adds up."""

from typing import Any

import httpx
from sqlalchemy import text

from libs.clock import now
from libs.db import Tx
from libs.instants import stamp
from regulars.loyalty.v1 import ledger_pb2 as ledger_pb
from regulars.loyalty.v1 import reports_pb2 as pb
from regulars.loyalty.v1.reports_pb2_grpc import ReportsServiceStub
from regulars.loyalty.v1.rewards_pb2 import REWARD_KIND_CUSTOM
from services.loyalty.reports import jobs
from tests.customers.purchases import record, refund
from tests.customers.shop import Shop, refused
from tests.loyalty.catalogue import add_reward, cancel, redeem, use
from tests.loyalty.members import balance, buy, give, has, in_ledger, join, ledger
from tests.loyalty.test_rest import call


async def report(shop: Shop, name: str = "points", **fields: Any) -> pb.Report:
    calls = shop.calls(ReportsServiceStub)
    found: pb.Report = await calls.GetReport(pb.GetReportRequest(report=name, **fields))
    return found


async def fold(shop: Shop, at_once: int = 3) -> int:
    """Folds all there is; how many steps it took."""
    steps = 0
    for each in jobs.FOLDS:

        async def once(tx: Tx, each: Any = each) -> bool:
            found: bool = await each(tx, now(), at_once)
            return found

        more = True
        while more:
            more, steps = await in_ledger(shop, once), steps + 1
    return steps


async def test_points_add_up_whatever_is_folded(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    await buy(shop, member, 50_000)
    await has(shop, member, 500)
    await give(shop, other, 100)
    await give(shop, other, -30)
    spent = await ledger(shop).RedeemPoints(ledger_pb.RedeemPointsRequest(customer_id=member, points=200))
    await ledger(shop).RedeemPoints(ledger_pb.RedeemPointsRequest(customer_id=member, points=40))
    await ledger(shop).ReverseRedemption(ledger_pb.ReverseRedemptionRequest(id=spent.id))
    before = await report(shop)
    total = before.total.points
    assert (total.issued_points, total.redeemed_points, total.removed_points) == (600, 40, 30)
    assert (total.outstanding_points, total.outstanding_minor, total.redeemed_minor) == (530, 530, 40)
    (row,) = before.rows
    assert (row.day, row.points) == (before.last_day, total)
    assert await fold(shop) > len(jobs.FOLDS)
    again = await report(shop)
    assert (again.rows, again.total) == (before.rows, before.total)
    await give(shop, other, 7)
    later = await report(shop, by=pb.REPORT_GROUPING_MONTH)
    assert later.total.points.outstanding_points == 537
    assert [each.day for each in later.rows] == [f"{later.last_day[:7]}-01"]
    by_tier = await report(shop, by=pb.REPORT_GROUPING_TIER)
    assert sum(each.points.outstanding_points for each in by_tier.rows) == 537
    assert sum(each.points.issued_points for each in by_tier.rows) == 607
    whole = [await balance(shop, each) for each in (member, other)]
    assert sum(each.balance + each.pending for each in whole) == 537
    gone = await report(shop, last_day="2020-01-31")
    assert (list(gone.rows), gone.total.points.outstanding_points) == ([], 0)


async def test_tiers_tell_who_stands_where_and_who_rose(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    await buy(shop, member, 90_000, placed_at=stamp(now()))
    await has(shop, member, 900)
    await give(shop, other, 5)
    gone, _ = await join(shop), await join(shop)
    await give(shop, gone, 7)
    left = text("update memberships set present = false where customer_id = :gone")
    await in_ledger(shop, lambda tx: tx.execute(left, {"gone": gone}))
    found = await report(shop, "tiers")
    assert {row.tier: (row.members, row.upgrades) for row in found.rows if row.members} == {
        "BRONZE": (2, 0),
        "SILVER": (1, 1),
    }
    assert (found.total.members, found.upgrade_percent) == (3, 33.33)
    assert found.total.points.outstanding_points == 912
    assert [row.upgrade_percent for row in found.rows][:2] == [0.0, 100.0]


async def test_rewards_costs_and_cohorts_are_the_same_whatever_is_folded(shop: Shop) -> None:
    member, other = await join(shop), await join(shop)
    await buy(shop, member, 50_000, placed_at=stamp(now()))
    await has(shop, member, 500)
    await give(shop, other, 300)
    five = await add_reward(shop, 100)
    mug = await add_reward(shop, 50, name="A mug", kind=REWARD_KIND_CUSTOM)
    first, second = [await redeem(shop, member, five) for _ in range(2)]
    third = await redeem(shop, other, mug)
    await use(shop, first.code)
    await use(shop, third.code)
    await cancel(shop, second.code)

    async def told() -> list[pb.Report]:
        return [await report(shop, name) for name in ("rewards", "costs", "cohorts")]

    wanted, costs, cohorts = before = await told()
    assert [(row.reward.name, row.reward.redeemed, row.reward.used) for row in wanted.rows] == [
        ("Five off", 2, 1),
        ("A mug", 1, 1),
    ]
    whole = wanted.total.reward
    assert (whole.redeemed, whole.cancelled, whole.spent_points, whole.used_minor) == (3, 1, 150, 550)
    (day,) = costs.rows
    assert day.costs == costs.total.costs
    assert (day.costs.issued_minor, day.costs.rewards_minor, day.costs.orders) == (800, 550, 1)
    assert (day.costs.revenue_minor, day.costs.issued_percent, day.costs.rewards_percent) == (
        50_000,
        1.6,
        1.1,
    )
    (joined,) = cohorts.rows
    assert (joined.cohort.members, joined.day) == (2, f"{cohorts.last_day[:7]}-01")
    (month,) = joined.cohort.months
    assert (month.number, month.active, month.active_percent) == (0, 2, 100.0)
    assert (month.issued_points, month.redeemed_points) == (800, 150)
    assert await fold(shop, at_once=1) > len(jobs.FOLDS)
    assert [(each.rows, each.total) for each in await told()] == [(each.rows, each.total) for each in before]

    await redeem(shop, member, mug)
    await buy(shop, other, 10_000, placed_at=stamp(now()), external_id="half")
    await has(shop, other, 350)
    await record(shop, refund("half", 5_000))
    await has(shop, other, 300)
    wanted, costs, cohorts = await told()
    assert (wanted.total.reward.redeemed, wanted.total.reward.spent_points) == (4, 200)
    assert (costs.total.costs.revenue_minor, costs.total.costs.orders) == (55_000, 2)
    (month,) = cohorts.rows[0].cohort.months
    assert (month.active, month.issued_points, month.redeemed_points) == (2, 900, 200)
    by_month = await report(shop, "costs", by=pb.REPORT_GROUPING_MONTH)
    assert [row.costs for row in by_month.rows] == [costs.total.costs]


async def test_wrong_reports_are_refused(shop: Shop) -> None:
    assert (
        await refused(shop.calls(ReportsServiceStub).GetReport(pb.GetReportRequest(report="x")))
    ).reason == ("REPORT_NOT_FOUND")
    wrong: list[dict[str, Any]] = [
        {"first_day": "2026-02-30"},
        {"first_day": "2026-02-02", "last_day": "2026-02-01"},
        {"first_day": "1990-01-01"},
    ]
    for fields in wrong:
        request = pb.GetReportRequest(**fields)
        found = await refused(shop.calls(ReportsServiceStub).GetReport(request))
        assert list(found.fields) == ["first_day"]
    by_tier = pb.GetReportRequest(report="costs", by=pb.REPORT_GROUPING_TIER)
    assert list((await refused(shop.calls(ReportsServiceStub).GetReport(by_tier))).fields) == ["by"]


async def test_reports_by_hand(shop: Shop, rest: httpx.AsyncClient) -> None:
    member = await join(shop)
    await give(shop, member, 250)
    found = await call(rest, "GET", f"/loyalty/reports/points?businessId={shop.id}&by=MONTH")
    assert found["total"]["points"]["outstandingPoints"] == "250"
    found = await call(rest, "GET", f"/loyalty/reports/tiers?businessId={shop.id}")
    assert found["rows"][0]["tier"] == "BRONZE"
