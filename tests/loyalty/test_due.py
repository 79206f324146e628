"""Who has something to do is found for all tenants at once, and nobody else is asked."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from libs import clock
from libs.caller import current
from libs.ids import new_id
from services.loyalty import due
from services.loyalty.ledger.jobs import book_what_holds
from services.loyalty.reports import jobs as reports
from tests.customers.shop import Shop
from tests.loyalty.members import balance, give, in_ledger, join
from tests.platform import Stack

SUBJECTS = ("ledger", "rewards", "referrals", "tiers", "households")


async def test_only_who_has_something_to_do_is_found(shop: Shop) -> None:
    runtime = shop.tenant.stack.runtimes["loyalty"]

    async def busy(*subjects: str) -> list[str]:
        return [each for each in subjects if shop.tenant.id in await due.tenants(runtime, each)]

    member = await join(shop)
    await give(shop, member, 10)
    assert await busy(*SUBJECTS, "reports") == ["reports"]
    for fold in reports.FOLDS:
        await in_ledger(shop, lambda tx, fold=fold: fold(tx, clock.now(), 100))  # type: ignore[misc]
    assert await busy("reports") == []
    await in_ledger(
        shop,
        lambda tx: tx.execute(
            text("update lots set expires_at = :now where business_id = :business"),
            {"now": tx.now, "business": shop.id},
        ),
    )
    assert await busy(*SUBJECTS) == ["ledger"]
    await book_what_holds(runtime)
    assert await busy(*SUBJECTS) == []
    assert (await balance(shop, member)).balance == 0
    assert await busy("reports") == ["reports"]


async def test_a_tenant_that_fails_keeps_no_other_from_its_run(stack: Stack) -> None:
    tenants, done = [new_id() for _ in range(3)], []

    async def act(_: Any) -> None:
        if current().tenant() == tenants[0]:
            raise ValueError("the first")
        done.append(current().tenant())

    with pytest.raises(ValueError, match="the first"):
        await due.for_each(stack.runtimes["loyalty"], tenants, act)
    assert done == tenants[1:]


async def test_only_the_worker_may_ask(shop: Shop) -> None:
    with pytest.raises(ProgrammingError, match="permission denied"):
        await in_ledger(shop, lambda tx: tx.execute(text("select tenants_with_work('ledger', now())")))
