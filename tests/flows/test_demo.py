"""The demonstration on the tests' stack: the whole purchase history, twice."""

import io
from datetime import date, timedelta
from uuid import UUID

from rich.console import Console

from demo import files, story
from demo.people import people
from demo.rest import Rest
from libs import stream
from tests.platform import TenantOfTest


async def told(tenant: TenantOfTest) -> tuple[bool, str]:
    """Whether everything adds up, and what was printed."""
    stack, text = tenant.stack, io.StringIO()

    def mint(business: UUID) -> str:
        return tenant.token("owner", businesses=[business])

    nats = await stream.connect(stack.settings.nats_url, "demo")
    try:
        async with Rest(f"{stack.rest}/api/v1", tenant.token("owner")) as rest:
            out = Console(file=text, width=200)
            right = await story.tell(rest, mint, nats, stack.settings.prefix, tenant.id, out)
    finally:
        await nats.close()
    return right, text.getvalue()


async def test_the_history_adds_up_and_a_second_time_doubles_nothing(tenant: TenantOfTest) -> None:
    right, text = await told(tenant)
    assert right, text
    assert "2,357 customers created, 5 rows refused" in text
    assert "6,919 orders created, 4 rows refused" in text
    assert "FORMAT_EMAIL" in text
    assert "event customers.order.completed" in text
    right, text = await told(tenant)
    assert right, text
    assert "2,357 customers skipped" in text
    assert "6,919 orders skipped" in text


def test_people_are_always_the_same_and_nobody_is_there_twice() -> None:
    everybody = list(people(files.CUSTOMERS))
    assert everybody == list(people(files.CUSTOMERS))
    assert len({one.email for one in everybody}) == len({one.phone for one in everybody}) == files.CUSTOMERS


def test_the_last_purchase_is_always_of_the_last_seven_days() -> None:
    last = max(purchase.day for purchase in files.purchases())
    for day in range(15):
        today = date(2026, 11, 21) + timedelta(days=day)
        assert 1 <= (today - last - timedelta(weeks=files.weeks_until(today))).days <= 7
