"""Members of three households who spend each other's points, some of which lapse meanwhile, and who come and go.

Every call bears a request id but those by which somebody leaves. One without an answer is told again, or never.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from libs import clock
from libs.instants import stamp
from regulars.loyalty.v1 import households_pb2 as households
from regulars.loyalty.v1 import ledger_pb2 as pb
from regulars.loyalty.v1 import programs_pb2 as programs
from tests.chaos import settling
from tests.chaos.deeds import Deed, Doing
from tests.chaos.work import CALL_SECONDS, called
from tests.customers.shop import Shop, open_shop
from tests.flows.looking import rows
from tests.loyalty import members
from tests.platform import Stack, TenantOfTest

CLIENTS = 3
HOUSEHOLDS, STEADY = 3, 3  # so many households of so many who never leave
FLOATING = 2
PAUSE_SECONDS = 0.1
HURRY_SECONDS = 2.0
HELD_SECONDS, LAPSING_SECONDS = 8, 1
TIMERS = ("book what holds", "give back what was pooled")


@dataclass(frozen=True)
class Family:
    """A business whose program lets members pool, and its customers; those who float come first."""

    shop: Shop
    program_id: str
    floating: Sequence[str]
    steady: Sequence[Sequence[str]]

    @property
    def customers(self) -> list[str]:
        """All of them."""
        return [*self.floating, *(each for those in self.steady for each in those)]


@dataclass(kw_only=True)
class Households(Doing):
    """Clients of the business's till and of its members. `ids` are the households of those who never leave."""

    family: Family
    ids: list[str] = field(default_factory=list)
    tried: dict[str, str] = field(default_factory=dict)

    async def run(self) -> None:
        """Works until `stop`; every client finishes what it has begun. Raises what must not happen."""
        try:
            await self._begin()
            async with asyncio.TaskGroup() as group:
                for number in range(CLIENTS):
                    group.create_task(self._client(number))
                group.create_task(self._come_and_go())
                group.create_task(self._hurry())
        finally:
            await self.close()

    async def _begin(self) -> None:
        """Three households, in each of which the first has points."""
        for first, *others in self.family.steady:
            await self._give(first, 400, certain=True)
            request = households.CreateHouseholdRequest(customer_id=first)
            made = await self.do("CreateHousehold", request, certain=True)
            self.ids.append(made.id)
            for each in others:
                await self._take_in(made.id, each, certain=True)

    async def _client(self, number: int) -> None:
        dice = random.Random(number)
        while not self.stop.is_set():
            rich, *poor = dice.choice(self.family.steady)
            spender = dice.choice([*poor, *self.family.floating])
            match dice.randrange(6):
                case 0:
                    await self._give(rich, dice.choice((200, 90)))
                case 1:
                    await self._give(dice.choice((rich, spender)), 60, seconds=dice.uniform(1, 4))
                case 2 | 3:
                    await self._spend(spender, dice)
                case 4 | 5:
                    await self._hold(spender, dice)
            if dice.random() < 0.2:
                await self.tell_twice(dice)
            await asyncio.sleep(PAUSE_SECONDS * dice.random())

    # ------------------------------------------------------------------ points

    async def _give(
        self, customer_id: str, points: int, *, seconds: float = 0, certain: bool = False
    ) -> None:
        """Points that lapse after so many seconds; 0: never."""
        request = pb.AdjustPointsRequest(
            customer_id=customer_id,
            program_id=self.family.program_id,
            points=points,
            reason="a gift",
            expires_at=stamp(clock.now() + timedelta(seconds=seconds)) if seconds else None,
        )
        await self.do("AdjustPoints", request, certain=certain)

    async def _spend(self, customer_id: str, dice: random.Random) -> None:
        """More than the member has alone."""
        request = pb.RedeemPointsRequest(
            customer_id=customer_id,
            program_id=self.family.program_id,
            points=await self._alone(customer_id) + dice.randint(1, 60),
        )
        spent = await self.do("RedeemPoints", request)
        if spent.id and dice.random() < 0.5:
            await self.do("ReverseRedemption", pb.ReverseRedemptionRequest(id=spent.id), spent)

    async def _hold(self, customer_id: str, dice: random.Random) -> None:
        """Captures, releases or forgets it."""
        forgotten = dice.random() < 0.3
        request = pb.HoldPointsRequest(
            customer_id=customer_id,
            program_id=self.family.program_id,
            points=await self._alone(customer_id) + dice.randint(2, 60),
            ttl_seconds=LAPSING_SECONDS if forgotten else HELD_SECONDS,
        )
        hold = await self.do("HoldPoints", request)
        if not hold.id or forgotten:
            return
        if dice.random() < 0.6:
            part = dice.choice((0, request.points // 2))
            await self.do("CaptureHold", pb.CaptureHoldRequest(id=hold.id, points=part), hold)
        else:
            await self.do("ReleaseHold", pb.ReleaseHoldRequest(id=hold.id), hold)

    async def _alone(self, customer_id: str) -> int:
        """What a member can spend without any help."""
        request = pb.GetBalanceRequest(customer_id=customer_id, program_id=self.family.program_id)
        found: pb.Balance = await self._read("LedgerService", "GetBalance", request)
        return found.spendable

    # ------------------------------------------------------------------ who is in which

    async def _come_and_go(self) -> None:
        """Takes those who float out of where they are, or into another household than they tried last."""
        dice = random.Random(CLIENTS)
        while not self.stop.is_set():
            for customer_id in self.family.floating:
                request = households.ListHouseholdsRequest(customer_id=customer_id)
                found: Any = await self._read("HouseholdsService", "ListHouseholds", request)
                if found.households:
                    await self._leave(customer_id, found.households[0].id, dice)
                else:
                    await self._join(customer_id, dice)
                await asyncio.sleep(PAUSE_SECONDS * dice.random())

    async def _leave(self, customer_id: str, household_id: str, dice: random.Random) -> None:
        """By themselves or taken out. It may come to nothing: an answer that was lost may have done it."""
        if dice.random() < 0.5:
            await self.do("LeaveMyHousehold", households.LeaveMyHouseholdRequest(), who=customer_id)
            return
        request = households.RemoveHouseholdMemberRequest(id=household_id, customer_id=customer_id)
        await self.do("RemoveHouseholdMember", request)

    async def _join(self, customer_id: str, dice: random.Random) -> None:
        """A household of their own, one that somebody invites them to, or one that staff take them into."""
        way = dice.randrange(5)
        if way == 0:
            self.tried[customer_id] = ""
            await self.do("CreateMyHousehold", households.CreateMyHouseholdRequest(), who=customer_id)
            return
        place = dice.choice(
            [number for number in range(HOUSEHOLDS) if self.ids[number] != self.tried.get(customer_id)]
        )
        self.tried[customer_id] = self.ids[place]
        if way < 3:
            await self._take_in(self.ids[place], customer_id)
            return
        invited = await self.do(
            "CreateHouseholdInvitation",
            households.CreateHouseholdInvitationRequest(),
            who=dice.choice(self.family.steady[place]),
            certain=True,
        )
        if invited.id:
            request = households.JoinHouseholdRequest(invitation_code=invited.code)
            await self.do("JoinHousehold", request, who=customer_id)

    async def _take_in(self, household_id: str, customer_id: str, *, certain: bool = False) -> Deed:
        request = households.AddHouseholdMemberRequest(
            id=household_id, customer_id=customer_id, reason="they asked at the counter"
        )
        return await self.do("AddHouseholdMember", request, certain=certain)

    async def _read(self, service: str, rpc: str, request: Any) -> Any:
        call = getattr(self.door().stubs[service], rpc)
        return await self.until_answered(lambda: called(call(request, timeout=CALL_SECONDS)))

    async def _hurry(self) -> None:
        """What lapses is booked every few seconds, and not every minute."""
        last = time.monotonic()
        while not self.stop.is_set():
            await asyncio.sleep(PAUSE_SECONDS)
            if time.monotonic() - last > HURRY_SECONDS:
                await settling.run_timers(self.shop.tenant.stack, TIMERS)
                last = time.monotonic()


async def until_booked(stack: Stack, work: Households) -> None:
    """Waits until everything that lapses has lapsed, and nobody has points of others any more."""
    query = """
        select count(*) as n from loyalty.lots where tenant_id = %s and remaining > 0
        and (expires_at is not null or pooled or held > 0)
    """
    async with asyncio.timeout(settling.QUIET_SECONDS):
        while (await rows(stack, query, work.shop.tenant.id))[0]["n"]:
            await settling.run_timers(stack, TIMERS)
            await asyncio.sleep(0.5)


async def open_family(tenant: TenantOfTest) -> Family:
    """A business with members who are in no household yet."""
    shop = await open_shop(tenant)
    program = await members.set_program(
        shop, expiry=programs.EXPIRY_KIND_NEVER, pooling_allowed=True, largest_household=20
    )
    people = [await members.join(shop) for _ in range(FLOATING + HOUSEHOLDS * STEADY)]
    floating, others = people[:FLOATING], people[FLOATING:]
    steady = [others[first : first + STEADY] for first in range(0, len(others), STEADY)]
    return Family(shop, program.id, floating, steady)
