"""Birthdays, complete profiles and reviews: given once, where the member lives, and never from what was erased."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import select, text, update

from libs import clock
from libs.caller import acting_as
from libs.db import Tx
from libs.ids import new_id
from libs.instants import stamp
from libs.outbox import emit
from regulars.customers.v1 import addresses_pb2 as addresses
from regulars.customers.v1 import customers_pb2 as customers
from regulars.customers.v1 import events_pb2 as told
from regulars.loyalty.v1 import programs_pb2 as programs
from services.loyalty.ledger import anniversaries
from services.loyalty.ledger.anniversaries import due_days
from services.loyalty.ledger.jobs import ask_for_people, keep_birthdays
from services.loyalty.people import actions as people_actions
from services.loyalty.people.actions import FOR_GOOD, Facts
from services.loyalty.people.tables import people
from services.loyalty.programs import queries
from tests.customers.shop import Shop
from tests.loyalty.members import (
    add_rule,
    balance,
    faults,
    has,
    in_ledger,
    join,
    set_program,
    transactions,
    until,
)
from tests.loyalty.test_disorder import House
from tests.loyalty.test_tiers import configure, ladder
from tests.platform import Stack

OLD = text("update memberships set joined_at = joined_at - interval '3 years' where business_id = :business")


async def bonus(shop: Shop, trigger: programs.BonusTrigger.ValueType, points: int) -> None:
    await add_rule(shop, bonus=programs.Bonus(trigger=trigger, points=points))


async def known(shop: Shop, customer_id: str, day: date) -> None:
    """Returns once loyalty knows this birthday."""

    async def look() -> bool:
        wanted = select(people).where(people.c.customer_id == UUID(customer_id))
        row = (await in_ledger(shop, lambda tx: tx.execute(wanted))).first()
        return row is not None and (row.birth_month, row.birth_day) == (day.month, day.day)

    await until(look)


def born(day: date) -> str:
    """In a leap year, so that every day is there."""
    return day.replace(year=1992).isoformat()


async def celebrate(shop: Shop) -> None:
    await in_ledger(shop, lambda tx: tx.execute(OLD, {"business": shop.id}))
    await keep_birthdays(shop.tenant.stack.runtimes["loyalty"])


async def test_a_birthday_is_given_once_a_year_by_rules_and_by_the_tier(shop: Shop) -> None:
    steps = ladder(("BRONZE", 0), ("GOLD", 1_000))
    steps.tiers[0].birthday_points = 20
    await configure(shop, steps)
    await bonus(shop, programs.BONUS_TRIGGER_BIRTHDAY, 50)
    today = clock.now().astimezone(UTC).date()
    member, other = await join(shop, born_on=born(today)), await join(shop)
    await known(shop, member, today)
    for _ in range(2):
        await celebrate(shop)
        assert (await balance(shop, member)).balance == 70
    (entry,) = await transactions(shop, member)
    assert [each.explanation for each in entry.reasons] == [
        "for the birthday",
        "for the birthday, as BRONZE",
    ]
    yesterday = today - timedelta(days=1)
    changed = customers.Customer(born_on=born(yesterday))
    await shop.customers.UpdateCustomer(customers.UpdateCustomerRequest(id=member, customer=changed))
    await known(shop, member, yesterday)
    await celebrate(shop)
    expected = 70 if yesterday.year == today.year else 140
    assert ((await balance(shop, member)).balance, (await balance(shop, other)).balance) == (expected, 0)
    assert await faults(shop) == []


async def test_a_birthday_begins_where_the_member_lives(shop: Shop) -> None:
    await bonus(shop, programs.BONUS_TRIGGER_BIRTHDAY, 50)
    early = clock.now().astimezone(ZoneInfo("Pacific/Kiritimati")).date()
    zones = ("Pacific/Kiritimati", "Pacific/Pago_Pago")
    members = [await join(shop, born_on=born(early), time_zone=zone) for zone in zones]
    for member in members:
        await known(shop, member, early)
    await celebrate(shop)
    assert [(await balance(shop, each)).balance for each in members] == [50, 0]


async def test_another_year_begins_where_the_member_lives(shop: Shop) -> None:
    await bonus(shop, programs.BONUS_TRIGGER_ANNIVERSARY, 50)
    early, zones = datetime(2026, 12, 31, 23, tzinfo=UTC), ("Pacific/Kiritimati", "Pacific/Pago_Pago")
    members = [await join(shop, born_on="1992-05-04", time_zone=zone) for zone in zones]
    for member in members:
        await known(shop, member, date(1992, 5, 4))
    came = text("update memberships set joined_at = :at where business_id = :business")
    where = {"at": early.replace(year=2024), "business": shop.id}  # there it was the new year already
    await in_ledger(shop, lambda tx: tx.execute(came, where))
    (program,) = await in_ledger(shop, anniversaries.celebrating)

    async def given(now: datetime) -> list[int]:
        async def celebrate(tx: Tx) -> None:
            tx.now = now
            await anniversaries.celebrate(tx, program, UUID(int=0), 100)

        await in_ledger(shop, celebrate)
        return [(await balance(shop, each)).lifetime for each in members]

    assert await given(early - timedelta(hours=14)) == [0, 0]
    assert await given(early - timedelta(hours=12, minutes=30)) == [50, 0]
    for later in (timedelta(0), timedelta(days=6)):
        assert await given(early + later) == [50, 50]


async def test_what_is_new_pays_for_no_day_before_it(shop: Shop) -> None:
    steps = ladder(("BRONZE", 0), ("GOLD", 1_000))
    today = clock.now().astimezone(UTC).date()
    member = await join(shop, born_on=born(today - timedelta(days=2)))
    await known(shop, member, today - timedelta(days=2))
    await bonus(shop, programs.BONUS_TRIGGER_BIRTHDAY, 50)
    steps.tiers[0].birthday_points = 20
    await configure(shop, steps)
    await celebrate(shop)
    assert (await balance(shop, member)).balance == 0
    before = "interval '4 days' where business_id = :business"

    async def age(tx: Tx) -> None:
        for each in (
            f"update earning_rules set holds_from = holds_from - {before}",
            f"update tier_configurations set changed_at = changed_at - {before}",
        ):
            await tx.execute(text(each), {"business": shop.id})

    await in_ledger(shop, age)
    await celebrate(shop)
    assert (await balance(shop, member)).balance == 70


async def test_the_29th_of_february_falls_where_the_program_says(stack: Stack, shop: Shop) -> None:

    for setting, day in (
        (programs.LEAP_DAY_FEBRUARY_28, date(2027, 2, 28)),
        (programs.LEAP_DAY_MARCH_1, date(2027, 3, 1)),
    ):
        await set_program(shop, leap_day=setting)
        program = await in_ledger(shop, lambda tx: queries.meant(tx, shop.id, ""))
        week = [date(2027, 2, 25) + timedelta(days=n) for n in range(7)]
        leap = [each for each in due_days(program, week) if each[1:] == (2, 29)]
        assert leap == [(day, 2, 29)]
        assert (date(2028, 2, 29), 2, 29) in due_days(program, [date(2028, 2, 29)])
        assert len(due_days(program, [date(2028, 2, 28), date(2028, 3, 1)])) == 2


async def test_a_complete_profile_is_given_once(shop: Shop) -> None:
    await bonus(shop, programs.BONUS_TRIGGER_PROFILE_COMPLETED, 30)
    member = await join(
        shop,
        first_name="Ann",
        phone="+14155550123",
        email=f"{new_id().hex}@example.com",
        born_on="1990-01-01",
    )
    address = addresses.Address(
        street_lines=["1 Main St"], city="New York", state="NY", postal_code="10005", country="US"
    )
    await shop.addresses.CreateAddress(addresses.CreateAddressRequest(customer_id=member, address=address))
    await has(shop, member, 30)
    changed = customers.Customer(last_name="Lee")
    await shop.customers.UpdateCustomer(customers.UpdateCustomerRequest(id=member, customer=changed))
    other = await join(shop)  # heard after it
    assert [(await balance(shop, each)).balance for each in (member, other)] == [30, 0]


async def test_a_review_is_given_once_before_anybody_tells_of_it(shop: Shop) -> None:
    await bonus(shop, programs.BONUS_TRIGGER_REVIEW, 15)
    member, feedback = await join(shop), str(new_id())

    async def tell(kind: told.FeedbackKind.ValueType, feedback_id: str) -> None:
        event = told.FeedbackSubmitted(
            feedback_id=feedback_id,
            customer_id=member,
            business_id=shop.id,
            kind=kind,
            score=5,
            submitted_at=stamp(clock.now()),
        )
        await in_ledger(
            shop,
            lambda tx: emit(tx, event, aggregate_id=UUID(feedback_id), version=1, business_id=UUID(shop.id)),
        )

    for kind, feedback_id in (
        (told.FEEDBACK_KIND_NPS, str(new_id())),
        (told.FEEDBACK_KIND_REVIEW, feedback),
        (told.FEEDBACK_KIND_REVIEW, feedback),
        (told.FEEDBACK_KIND_REVIEW, str(new_id())),
    ):
        await tell(kind, feedback_id)
    await has(shop, member, 30)


async def test_whoever_could_not_be_asked_for_is_asked_for_later(shop: Shop) -> None:
    today = clock.now().date()
    member = await join(shop, born_on=born(today))
    await known(shop, member, today)
    lost = update(people).where(people.c.customer_id == UUID(member))
    nothing: dict[str, Any] = {"version": 0, "birth_month": None, "birth_day": None}
    await in_ledger(shop, lambda tx: tx.execute(lost.values(**nothing)))
    await in_ledger(shop, lambda tx: people_actions.want(tx, [UUID(member)]))
    await ask_for_people(shop.tenant.stack.runtimes["loyalty"])
    await known(shop, member, today)


async def test_what_was_erased_never_comes_back(stack: Stack) -> None:
    house = House(stack)
    customer = house.customers[0]
    await house.hear(house.beginning())
    facts = Facts(
        customer_id=customer,
        version=7,
        birth_month=5,
        birth_day=4,
        time_zone="",
        profile_complete=True,
    )

    async def row(newer: Facts | None = None) -> Any:
        with acting_as(house.caller):
            async with house.loyalty.db.tx() as tx:
                if newer:
                    await people_actions.know(tx, [newer])
                    await people_actions.want(tx, [customer])
                return (await tx.execute(select(people).where(people.c.customer_id == customer))).one()

    assert (await row(facts)).birth_day == 4
    erased = told.CustomerErased(customer_id=str(customer), operation_id=str(new_id()))
    await house.hear([house.event(erased, customer, 9)])
    for late in (None, facts):
        found = await row(late)
        assert (found.version, found.birth_month, found.birth_day, found.wanted) == (
            FOR_GOOD,
            None,
            None,
            False,
        )
