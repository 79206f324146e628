"""What is done again and again for rewards: codes past their time are booked, and rewards whose time has come told."""

from datetime import timedelta
from typing import Any

from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty import due
from services.loyalty.rewards import actions

AT_ONCE = 1_000


async def keep_rewards(rt: Any) -> None:
    """Expires every tenant's codes that are past their time, and publishes rewards whose time has come."""
    await due.for_each(rt, await due.tenants(rt, "rewards"), _keep)


async def _keep(runtime: Runtime) -> None:
    for book in (actions.expire_redemptions, actions.publish_rewards):
        more = True
        while more:
            async with runtime.db.tx() as tx:
                more = await book(tx, AT_ONCE) == AT_ONCE


PERIODIC = [Periodic("keep rewards", timedelta(minutes=1), keep_rewards)]
