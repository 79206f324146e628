"""Clients that give, spend, hold, transfer and redeem points of members who buy meanwhile.

Every call bears a request id. One without an answer is told again with the same, through whichever door, or never.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from libs.ids import new_id
from regulars.customers.v1 import activities_pb2 as activities
from regulars.customers.v1.activities_pb2_grpc import ActivitiesServiceStub
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.loyalty.v1 import rewards_pb2 as rewards
from regulars.loyalty.v1 import tiers_pb2 as tiers
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from tests.chaos.deeds import Deed, Doing
from tests.chaos.purchases import Purchases
from tests.chaos.work import CALL_SECONDS, called
from tests.customers.shop import Shop, open_shop
from tests.loyalty import catalogue, members
from tests.platform import TenantOfTest

CLIENTS = 3
PAUSE_SECONDS = 0.1
NEWER = 60  # orders of which some are not told to the end
LAPSING_SECONDS = 1
SIGN_UP_POINTS, VISIT, VISIT_POINTS = 50, "visit", 7
DOUBLED = "c"  # the category for which points count twice
TIERS = (("BRONZE", 0), ("SILVER", 30_000), ("GOLD", 90_000), ("PLATINUM", 200_000))


@dataclass(frozen=True)
class Club:
    """A business with two programs: `first` is the default one, in `second` a return may leave less than nothing."""

    shop: Shop
    first: str
    second: str
    rewards: Sequence[rewards.Reward]


@dataclass(kw_only=True)
class Points(Doing):
    """Clients of a club's till. `purchases` are the orders on which points are spent."""

    club: Club
    customers: Sequence[str]
    purchases: Purchases
    duels: int = 0

    async def run(self) -> None:
        """Works until `stop`; every client finishes what it has begun. Raises what must not happen."""
        try:
            for customer_id in self.customers:
                for program_id in (self.club.first, self.club.second):
                    await self._adjust(customer_id, program_id, 1000, certain=True)
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(self._client(number))
        finally:
            await self.close()

    async def _client(self, number: int) -> None:
        dice = random.Random(number)
        while not self.stop.is_set():
            customer_id = dice.choice(self.customers)
            program_id = dice.choice((self.club.first, self.club.second))
            match dice.randrange(8):
                case 0:
                    await self._adjust(customer_id, program_id, dice.choice((300, 40, -60)))
                case 1:
                    await self._spend(customer_id, program_id, dice)
                case 2 | 3:
                    await self._hold(customer_id, program_id, dice)
                case 4:
                    await self._transfer(customer_id, dice)
                case 5 | 6:
                    await self._redeem(customer_id, dice)
                case 7:
                    await self._visit(customer_id)
            if dice.random() < 0.2:
                await self.tell_twice(dice)
            await asyncio.sleep(PAUSE_SECONDS * dice.random())

    async def _adjust(self, customer_id: str, program_id: str, points: int, *, certain: bool = False) -> None:
        request = pb.AdjustPointsRequest(
            customer_id=customer_id, program_id=program_id, points=points, reason="a gift"
        )
        await self.do("AdjustPoints", request, certain=certain)

    async def _spend(self, customer_id: str, program_id: str, dice: random.Random) -> None:
        order_id = self._order(customer_id, dice) if dice.random() < 0.6 else ""
        request = pb.RedeemPointsRequest(
            customer_id=customer_id, program_id=program_id, points=dice.randint(1, 150), order_id=order_id
        )
        spent = await self.do("RedeemPoints", request)
        if spent.id and not order_id and dice.random() < 0.5:
            await self.do("ReverseRedemption", pb.ReverseRedemptionRequest(id=spent.id), spent)

    def _order(self, customer_id: str, dice: random.Random) -> str:
        """One of the member's newer orders, of which more may be told. Empty: there is none."""
        stories = list(self.purchases.stories.values())[-NEWER:]
        mine = [
            min(each.order_ids)
            for each in stories
            if each.buyer.id == customer_id and len(each.order_ids) == 1
        ]
        return dice.choice(mine) if mine else ""

    async def _hold(self, customer_id: str, program_id: str, dice: random.Random) -> None:
        """Captures, releases or forgets it; and what was forgotten before cannot be captured any more."""
        forgotten = dice.random() < 0.3
        request = pb.HoldPointsRequest(
            customer_id=customer_id,
            program_id=program_id,
            points=dice.randint(2, 100),
            ttl_seconds=LAPSING_SECONDS if forgotten else 3600,
        )
        hold = await self.do("HoldPoints", request)
        if hold.id and not forgotten:
            if dice.random() < 0.5:
                part = dice.choice((0, request.points // 2))
                await self.do("CaptureHold", pb.CaptureHoldRequest(id=hold.id, points=part), hold)
            else:
                await self.do("ReleaseHold", pb.ReleaseHoldRequest(id=hold.id), hold)
        past = time.time() - LAPSING_SECONDS - 1
        lapsed = [
            each
            for each in self.deeds[-200:]
            if each.id
            and each.rpc == "HoldPoints"
            and each.request.ttl_seconds == LAPSING_SECONDS
            and each.answered < past
        ]
        if lapsed:
            hold = dice.choice(lapsed)
            late = await self.do("CaptureHold", pb.CaptureHoldRequest(id=hold.id), hold)
            assert not late.id, f"hold {hold.id} was captured after its time"

    async def _transfer(self, customer_id: str, dice: random.Random) -> None:
        other = dice.choice([each for each in self.customers if each != customer_id])
        request = pb.TransferPointsRequest(
            program_id=self.club.first,
            from_customer_id=customer_id,
            to_customer_id=other,
            points=dice.randint(1, 80),
        )
        await self.do("TransferPoints", request)

    async def _redeem(self, customer_id: str, dice: random.Random) -> None:
        """Uses a code, cancels it, keeps it, or tries both at once: one of them does it."""
        reward = dice.choice(self.club.rewards)
        got = await self.do(
            "RedeemReward", rewards.RedeemRewardRequest(customer_id=customer_id, reward_id=reward.id)
        )
        if not got.id:
            return
        use = rewards.MarkUsedRequest(code=got.code, place="Till 1")
        cancel = rewards.CancelRedemptionRequest(code=got.code)
        match dice.randrange(4):
            case 0:
                await self.do("MarkUsed", use, got)
            case 1:
                await self.do("CancelRedemption", cancel, got)
            case 2:
                both = (
                    self.do("MarkUsed", use, got, certain=True),
                    self.do("CancelRedemption", cancel, got, certain=True),
                )
                used, cancelled = await asyncio.gather(*both)
                assert bool(used.id) != bool(cancelled.id), f"{got.id} was used and cancelled, or neither"
                self.duels += 1

    async def _visit(self, customer_id: str) -> None:
        """A custom activity, which earns a bonus."""
        activity = activities.Activity(id=str(new_id()), kind=activities.ACTIVITY_KIND_CUSTOM, name=VISIT)
        item = activities.ActivityItem(customer_id=customer_id, activity=activity)
        request = activities.RecordActivitiesRequest(items=[item])
        deed = Deed("RecordActivities", request)
        self.deeds.append(deed)

        stub = self.shop.calls(ActivitiesServiceStub, subject="till")

        async def ask() -> None:
            answer = await called(stub.RecordActivities(request, timeout=CALL_SECONDS))
            assert answer.recorded + answer.duplicates == 1, answer

        await self.until_answered(ask)
        deed.id = activity.id
        self.acknowledged += 1


async def open_club(tenant: TenantOfTest) -> Club:
    """A business whose rules can be computed by heart; nobody is a member yet."""
    shop = await open_shop(tenant)
    first = await members.set_program(
        shop, expiry=programs.EXPIRY_KIND_NEVER, transfers_allowed=True, hundred_points_minor=100
    )
    doubled = programs.RuleConditions(categories=[DOUBLED])
    await members.add_rule(shop, multiplier={"factor_percent": 200}, conditions=doubled)
    for bonus in (
        {"trigger": programs.BONUS_TRIGGER_SIGN_UP, "points": SIGN_UP_POINTS},
        {"trigger": programs.BONUS_TRIGGER_CUSTOM_EVENT, "points": VISIT_POINTS, "event": VISIT},
    ):
        await members.add_rule(shop, bonus=bonus)
    settings = programs.ProgramSettings(
        expiry=programs.EXPIRY_KIND_NEVER, return_policy=programs.RETURN_POLICY_NEGATIVE
    )
    second = await members.rules(shop).CreateProgram(
        programs.CreateProgramRequest(program=programs.Program(name="Club", settings=settings))
    )
    halves = programs.PerAmount(points=1, per_minor=50, rounding=programs.ROUNDING_HALF_UP)
    rule = programs.EarningRule(name="Halves", per_amount=halves)
    await members.rules(shop).CreateRule(programs.CreateRuleRequest(program_id=second.id, rule=rule))
    ladder = tiers.TierConfiguration(
        period=tiers.TIER_PERIOD_LIFETIME,
        tiers=[tiers.Tier(name=name, spending_minor=minor) for name, minor in TIERS],
    )
    await shop.calls(TiersServiceStub).UpdateTierConfiguration(
        tiers.UpdateTierConfigurationRequest(configuration=ladder)
    )
    pool = await catalogue.add_pool(shop, *(f"PARTNER-{i:04}" for i in range(60)))
    offered = [
        await catalogue.add_reward(shop, 30),
        await catalogue.add_reward(shop, 20, stock=25),
        await catalogue.add_reward(shop, 10, code_pool_id=pool.id),
    ]
    return Club(shop, first.id, second.id, offered)
