"""The demonstration on the tests' stack: a part of the purchase history, twice."""

import io
from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID

from rich.console import Console

from demo import story
from demo.history import FOUND, RISING, History
from demo.people import people
from demo.rest import Rest
from libs import stream
from tests.platform import TenantOfTest

PART = History(customers=100)


async def told(tenant: TenantOfTest) -> tuple[bool, str]:
    """Whether everything adds up, and what was printed."""
    stack, text = tenant.stack, io.StringIO()

    def mint(business: UUID) -> str:
        return tenant.token("owner", businesses=[business])

    nats = await stream.connect(stack.settings.nats_url, "demo")
    try:
        async with Rest(f"{stack.rest}/api/v1", tenant.token("owner")) as rest:
            out = Console(file=text, width=200)
            right = await story.tell(rest, mint, nats, stack.settings.prefix, tenant.id, out, PART)
    finally:
        await nats.close()
    return right, text.getvalue()


async def test_the_history_adds_up_and_a_second_time_doubles_nothing(tenant: TenantOfTest) -> None:
    right, text = await told(tenant)
    assert right, text
    assert f"{PART.customers} customers created, 5 rows refused" in text
    assert f"{len(PART.purchases)} orders created, 4 rows refused" in text
    assert "FORMAT_EMAIL" in text
    assert "event customers.order.completed" in text
    assert "BRONZE → SILVER, by rule" in text
    assert "SILVER from 100 USD" in text
    assert "has its points back" in text
    end = text[text.index("Does it add up?") :]
    right, text = await told(tenant)
    assert right, text
    assert f"{PART.customers} customers skipped" in text
    assert f"{len(PART.purchases)} orders skipped" in text
    assert "nobody would move" in text
    assert text.endswith(end)


def test_the_whole_history_is_what_was_published() -> None:
    whole = History()
    assert (len(whole.people), len(whole.purchases), whole.dollars) == (2357, 6919, Decimal("244091.94"))
    assert whole.points(FOUND, RISING) == whole.points() + 25 + 14


def test_people_are_always_the_same_and_nobody_is_there_twice() -> None:
    everybody = History().people
    assert everybody == list(people(len(everybody)))
    assert len({one.email for one in everybody}) == len({one.phone for one in everybody}) == len(everybody)


def test_the_last_purchase_is_always_of_the_last_seven_days() -> None:
    history = History()
    last = max(purchase.day for purchase in history.purchases)
    for day in range(15):
        today = date(2026, 11, 21) + timedelta(days=day)
        assert 1 <= (today - last - timedelta(weeks=history.weeks_until(today))).days <= 7
