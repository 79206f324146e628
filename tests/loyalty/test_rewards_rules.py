"""Who may redeem what, and what a code looks like: without any database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.formats import written
from services.loyalty.problems import RedemptionCancelled, RedemptionExpired, RedemptionUsed
from services.loyalty.rewards import rules
from services.loyalty.rewards.rules import CANCELLED, EXPIRED, ISSUED, USED, Facts, Redemption, Reward

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
DAY = timedelta(days=1)
REWARD = Reward(reward_id=uuid4(), cost_points=100)
MEMBER = Facts(spendable=100, tier="SILVER")


def why(reward: Reward, member: Facts = MEMBER) -> str:
    refused = rules.refusal(reward, member, NOW)
    return refused.reason if refused else ""


def test_nothing_stands_in_the_way() -> None:
    assert why(REWARD) == ""
    fitting = replace(
        REWARD, left=1, per_member_limit=1, tiers=["silver"], valid_from=NOW, valid_until=NOW + DAY
    )
    assert why(fitting) == ""
    of_segments = replace(REWARD, segments=["A", "b"])
    assert why(of_segments, replace(MEMBER, segments=frozenset(["a"]))) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"active": False}, "REWARD_INACTIVE"),
        ({"valid_from": NOW + DAY}, "REWARD_NOT_YET_VALID"),
        ({"valid_until": NOW}, "REWARD_NO_LONGER_VALID"),
        ({"segments": ["s"]}, "SEGMENT_NOT_ELIGIBLE"),
        ({"tiers": ["GOLD", "PLATINUM"]}, "TIER_NOT_ELIGIBLE"),
        ({"left": 0}, "OUT_OF_STOCK"),
        ({"left": -1}, "OUT_OF_STOCK"),
        ({"cost_points": 101}, "INSUFFICIENT_POINTS"),
    ],
)
def test_what_stands_in_the_way(changes: dict[str, object], reason: str) -> None:
    assert why(replace(REWARD, **changes)) == reason  # type: ignore[arg-type]


def test_a_limit_counts_what_the_member_has() -> None:
    limited = replace(REWARD, per_member_limit=2)
    assert why(limited, replace(MEMBER, redeemed=1)) == ""
    assert why(limited, replace(MEMBER, redeemed=2)) == "LIMIT_REACHED"
    missing = rules.refusal(REWARD, replace(MEMBER, spendable=30), NOW)
    assert missing is not None
    assert missing.metadata == {"requested": "100", "spendable": "30", "missing": "70"}


def test_a_code_is_used_once_and_says_when_and_where() -> None:
    order = uuid4()
    used = Redemption(state=USED, closed_at=NOW, place="Till 3", order_id=order)
    assert rules.use(Redemption(state=ISSUED, expires_at=NOW + DAY), None, NOW)
    assert not rules.use(used, order, NOW)
    for other in (None, uuid4()):
        with pytest.raises(RedemptionUsed) as refused:
            rules.use(used, other, NOW)
        assert refused.value.metadata == {"used_at": written(NOW), "place": "Till 3"}
    with pytest.raises(RedemptionUsed):
        rules.cancel(used, NOW)


def test_a_code_past_its_time_is_expired_booked_or_not() -> None:
    for late in (
        Redemption(state=ISSUED, expires_at=NOW),
        Redemption(state=EXPIRED, expires_at=NOW, closed_at=NOW),
    ):
        assert rules.state_now(late, NOW) == EXPIRED
        with pytest.raises(RedemptionExpired):
            rules.use(late, None, NOW)
        with pytest.raises(RedemptionExpired):
            rules.cancel(late, NOW)
    cancelled = Redemption(state=CANCELLED, expires_at=NOW - DAY, closed_at=NOW - DAY)
    assert not rules.cancel(cancelled, NOW)
    with pytest.raises(RedemptionCancelled):
        rules.use(cancelled, None, NOW)


def test_codes_are_good_to_the_end_of_a_local_day() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert rules.good_until(0, NOW, berlin) is None
    assert rules.good_until(1, NOW, berlin) == datetime(2026, 3, 3, 23, tzinfo=UTC)
    over_the_change = rules.good_until(30, NOW, berlin)
    assert over_the_change == datetime(2026, 4, 1, 22, tzinfo=UTC)


@given(random=st.binary(min_size=10, max_size=10))
def test_a_code_holds_all_of_its_80_bits(random: bytes) -> None:
    code = rules.spelled(random)
    number = 0
    for letter in code.replace("-", ""):
        number = number * 32 + rules.ALPHABET.index(letter)
    assert number.to_bytes(10, "big") == random
    assert [len(group) for group in code.split("-")] == [4, 4, 4, 4]


@given(code=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]*[A-Za-z0-9]", fullmatch=True))
def test_how_a_code_is_typed_makes_no_difference(code: str) -> None:
    plain = rules.plain(code)
    assert plain == rules.plain(code.lower()) == rules.plain(f" {code} ") == rules.plain(plain)
    assert plain
