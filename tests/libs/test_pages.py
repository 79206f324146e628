"""A page token comes back whole, and only to whom, where and when it was given."""

from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs import clock
from libs.caller import Caller, acting_as
from libs.ids import new_id
from libs.pages import PageTokenInvalid, PageTokens, filter_hash
from regulars.customers.v1.customers_pb2 import ListCustomersRequest

TENANT = new_id()
SOMEBODY = Caller(tenant_id=TENANT, subject="s", method="/a/List")
pages = PageTokens(bytes(range(32)))

keys = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.text(),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
)


def refused(request: ListCustomersRequest, caller: Caller = SOMEBODY, tokens: PageTokens = pages) -> bool:
    with acting_as(caller):
        try:
            tokens.after(request)
        except PageTokenInvalid as problem:
            return problem.reason == "PAGE_TOKEN_INVALID" and problem.violations[0].field == "page_token"
    return False


@pytest.fixture
def token() -> str:
    with acting_as(SOMEBODY):
        return pages.next(ListCustomersRequest(order_by="created_at asc"), [UUID(int=7)])


@given(st.lists(keys, max_size=5))
def test_keys_come_back_as_they_were(values: list[object]) -> None:
    with acting_as(SOMEBODY):
        assert pages.open(pages.seal("m", b"f", values), "m", b"f") == values


def test_the_next_page_may_have_another_size(token: str) -> None:
    request = ListCustomersRequest(order_by="created_at asc", page_size=7, page_token=token)
    with acting_as(SOMEBODY):
        assert pages.after(request) == [UUID(int=7)]


def test_the_first_page_has_no_token() -> None:
    with acting_as(SOMEBODY):
        assert pages.after(ListCustomersRequest()) is None


def test_other_filters_methods_tenants_and_keys_are_refused(token: str) -> None:
    mine = ListCustomersRequest(order_by="created_at asc", page_token=token)
    assert not refused(mine)
    assert refused(ListCustomersRequest(order_by="created_at desc", page_token=token))
    assert refused(mine, Caller(tenant_id=TENANT, subject="s", method="/b/List"))
    assert refused(mine, Caller(tenant_id=new_id(), subject="s", method="/a/List"))
    assert refused(mine, tokens=PageTokens(lambda tenant_id: tenant_id.bytes * 2))


@given(st.text(max_size=80))
def test_rubbish_is_refused(rubbish: str) -> None:
    assert refused(ListCustomersRequest(page_token=rubbish)) or rubbish == ""


def test_every_changed_character_is_noticed(token: str) -> None:
    for position, was in enumerate(token):
        changed = token[:position] + ("A" if was != "A" else "B") + token[position + 1 :]
        request = ListCustomersRequest(order_by="created_at asc", page_token=changed)
        last = position == len(token) - 1  # its low bits are no part of the value
        assert refused(request) or last


def test_after_a_day_it_has_expired(token: str) -> None:
    request = ListCustomersRequest(order_by="created_at asc", page_token=token)
    clock.shift_to(clock.now() + timedelta(hours=25))
    try:
        assert refused(request)
    finally:
        clock.reset()


def test_it_does_not_show_what_is_in_it() -> None:
    with acting_as(SOMEBODY):
        seen = {pages.seal("m", b"f", ["Meier", date(2020, 1, 1), datetime.now(UTC)]) for _ in range(3)}
    assert len(seen) == 3
    assert not any("Meier" in token for token in seen)


def test_unknown_types_are_a_fault_of_the_program() -> None:
    with acting_as(SOMEBODY), pytest.raises(TypeError):
        pages.seal("m", b"f", [object()])


def test_the_filter_hash_leaves_out_the_page_itself() -> None:
    assert filter_hash(ListCustomersRequest(page_size=3, page_token="x")) == filter_hash(
        ListCustomersRequest()
    )
    assert filter_hash(ListCustomersRequest(deleted=True)) != filter_hash(ListCustomersRequest())
