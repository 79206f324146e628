"""What becomes of a referral, by what is true of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.ids import new_id
from services.customers.profiles.rules import referral_code
from services.loyalty.referrals import rules
from services.loyalty.referrals.rules import Bought, Facts, Outcome, Referral, Terms

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CAME = Referral(
    state=rules.REGISTERED,
    registered_at=NOW - 10 * DAY,
    expires_at=NOW + 10 * DAY,
    minimum_order_minor=2_000,
)


def bought(worth: int = 2_000, days: int = -1, **fields: Any) -> Bought:
    at = NOW + days * DAY
    values: dict[str, Any] = {
        "placed_at": at,
        "completed_at": at,
        "worth_minor": worth,
        "cancelled": False,
    } | fields
    return Bought(order_id=new_id(), **values)


def judged(of: Referral = CAME, terms: Terms | None = None, **facts: Any) -> Outcome:
    return rules.judge(of, terms or Terms(enabled=True), Facts(**facts), NOW)


def test_the_first_order_that_is_enough_and_in_time_counts() -> None:
    first, second = bought(days=-3), bought(days=-2)
    orders = (bought(1_999, days=-5), bought(days=-4, cancelled=True), second, first, bought(days=11))
    assert judged(orders=orders) == Outcome(state=rules.REWARDED, order_id=first.order_id)
    assert judged(orders=[bought(days=11)]).state == rules.REGISTERED
    assert judged(replace(CAME, minimum_order_minor=0), orders=[bought(0)]).state == rules.REGISTERED


def test_time_runs_out_and_a_late_word_of_an_early_order_still_counts() -> None:
    late = replace(CAME, expires_at=NOW)
    assert judged(CAME).look_at == CAME.expires_at
    assert judged(late).state == rules.EXPIRED
    assert judged(late, orders=[bought()]).state == rules.REWARDED


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        ({"alike": frozenset({rules.PHONE})}, rules.REFUSED, "SAME_CONTACT"),
        ({"alike": frozenset({rules.PHONE, rules.ADDRESS})}, rules.REFUSED, "SAME_CONTACT"),
        ({"alike": frozenset({rules.DEVICE})}, rules.FLAGGED, "SAME_ADDRESS"),
        ({"circular": True, "alike": frozenset({rules.ADDRESS})}, rules.REFUSED, "CIRCULAR"),
        ({"orders": [bought(1, days=-12)]}, rules.REFUSED, "NOT_NEW"),
    ],
)
def test_what_stands_against_it(facts: dict[str, Any], state: int, reason: str) -> None:
    outcome = judged(**facts)
    assert (outcome.state, outcome.reason) == (state, reason)
    if reason != "NOT_NEW":
        assert judged(replace(CAME, approved=True), **facts).state == rules.REGISTERED
        allowed = Terms(same_contact=rules.ALLOW, same_address=rules.ALLOW, circular=rules.ALLOW)
        assert judged(terms=allowed, **facts).state == rules.REGISTERED


@given(limit=st.integers(0, 3), lately=st.integers(0, 3), had=st.integers(0, 4), of_late=st.integers(0, 4))
def test_nobody_goes_beyond_a_limit(limit: int, lately: int, had: int, of_late: int) -> None:
    terms = Terms(limit=limit, limit_per_period=lately)
    outcome = judged(terms=terms, orders=[bought()], rewarded=had, rewarded_lately=min(had, of_late))
    beyond = (limit and had >= limit) or (lately and min(had, of_late) >= lately)
    assert (outcome.state == rules.REFUSED) == bool(beyond)


def test_points_wait_for_who_is_blocked_but_not_for_ever() -> None:
    waits = judged(orders=[bought()], frozen=True)
    assert (waits.state, waits.reason, waits.look_at) == (
        rules.QUALIFIED,
        "FROZEN",
        NOW + rules.AGAIN_AFTER,
    )
    of = replace(CAME, state=rules.QUALIFIED, qualified_at=NOW)
    assert judged(of, orders=[bought()]).state == rules.REWARDED
    assert judged(of).state == rules.REVOKED
    of = replace(of, qualified_at=NOW - rules.WAITS_FOR)
    assert judged(of, orders=[bought()], frozen=True).state == rules.EXPIRED


def test_a_reward_is_taken_back_once_no_order_is_good_enough() -> None:
    of = replace(CAME, state=rules.REWARDED)
    other = bought(days=-2)
    assert judged(of, orders=[bought(1_000), other]) == Outcome(state=rules.REWARDED, order_id=other.order_id)
    assert judged(of, orders=[bought(1_000)]) == Outcome(state=rules.REVOKED)


@given(st.binary(min_size=rules.CODE_BYTES, max_size=rules.CODE_BYTES))
def test_customers_pass_on_every_code_that_is_made(by_chance: bytes) -> None:
    code = rules.code_of(by_chance)
    assert referral_code(f" {code[:3].lower()}-{code[3:]} ") == code
