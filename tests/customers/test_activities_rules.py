"""The rules of activities, without a server."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.formats import Wrong
from regulars.customers.v1 import activities_pb2 as pb
from services.customers.activities import rules

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def test_the_numbers_of_the_rules_are_those_of_the_contract() -> None:
    assert rules.CUSTOM == pb.ACTIVITY_KIND_CUSTOM
    done_to_them = {
        pb.ACTIVITY_KIND_EMAIL_SENT,
        pb.ACTIVITY_KIND_EMAIL_DELIVERED,
        pb.ACTIVITY_KIND_EMAIL_BOUNCED,
        pb.ACTIVITY_KIND_SMS_SENT,
        pb.ACTIVITY_KIND_SMS_DELIVERED,
        pb.ACTIVITY_KIND_SMS_FAILED,
        pb.ACTIVITY_KIND_LOYALTY,
        pb.ACTIVITY_KIND_TIER,
        pb.ACTIVITY_KIND_SEGMENT,
        pb.ACTIVITY_KIND_NOTE,
    }
    assert set(pb.ActivityKind.values()) - {0} == rules.OWN_KINDS | done_to_them


@pytest.mark.parametrize(
    ("referrer", "kept"),
    [
        ("https://shop.example.com/u/ann?q=1#x", "https://shop.example.com"),
        ("https://ann:secret@example.com:8443/", "https://example.com"),
        ("android-app://com.example.mail/", "android-app://com.example.mail"),
        ("mailto:ann@example.com", ""),
        ("javascript:alert(1)", ""),
        ("https://[broken", ""),
        ("ann@example.com", ""),
    ],
)
def test_of_a_referrer_only_the_host_stays_in_clear(referrer: str, kept: str) -> None:
    assert rules.origin(referrer) == kept


@given(st.text(max_size=60))
def test_whatever_a_referrer_is_nothing_of_its_path_stays(text: str) -> None:
    kept = rules.origin(f"https://example.com/{text}")
    assert kept in {"https://example.com", ""}


def test_when_it_may_have_happened() -> None:
    assert rules.occurred_at(None, NOW) == NOW
    for right in (rules.EARLIEST, NOW, NOW + timedelta(hours=1)):
        assert rules.occurred_at(right, NOW) == right
    for wrong in (rules.EARLIEST - timedelta(microseconds=1), NOW + timedelta(hours=1, microseconds=1)):
        with pytest.raises(Wrong):
            rules.occurred_at(wrong, NOW)


def test_months() -> None:
    assert rules.month(datetime(2026, 1, 31, 23, tzinfo=UTC)).isoformat() == "2026-01-01"
    eastern = datetime.fromisoformat("2026-02-01T01:00:00+02:00")
    assert rules.month(eastern).isoformat() == "2026-01-01"
    assert rules.has_month(datetime(2016, 11, 1, tzinfo=UTC), NOW)
    assert not rules.has_month(datetime(2016, 10, 31, tzinfo=UTC), NOW)
    assert not rules.has_month(NOW + timedelta(days=40), NOW)


@pytest.mark.parametrize(
    ("given_ip", "kept"), [(" 203.0.113.9 ", "203.0.113.9"), ("2001:DB8::0", "2001:db8::")]
)
def test_ip_addresses_have_one_form(given_ip: str, kept: str) -> None:
    assert rules.ip(given_ip) == kept
    with pytest.raises(Wrong):
        rules.ip("203.0.113.256")
