"""What a caller may not see is not in the answer, however deep it lies, and cannot be written."""

from dataclasses import replace

import pytest

from libs.caller import Caller
from libs.masking import FieldsMasked, mask, refuse_masked
from regulars.customers.v1.customers_pb2 import Customer
from tests.libs.echoes import Echo, echo_server, pb

CONTACT = frozenset({"user.contact"})
CALLER = Caller(tenant_id=None, subject="ann", masks=CONTACT)


def test_masked_fields_are_cleared_and_listed_in_their_message() -> None:
    person = pb.Person(
        name="Ann", email="a@example.com", clerk="Bob", family=[pb.Person(email="b@example.com")]
    )
    said = pb.Said(text="t", person=person, people=[person])
    said.remarks["de"].contact = "c@example.com"
    said.remarks["de"].text = "fine"
    mask(said, CONTACT)
    assert b"example.com" not in said.SerializeToString()
    assert (said.person.name, said.remarks["de"].text) == ("Ann", "fine")
    assert list(said.person.masked_fields) == ["email"]
    assert list(said.people[0].masked_fields) == ["email"]
    assert list(said.masked_fields) == ["remarks.contact"]


def test_recursive_messages_are_masked_at_every_depth() -> None:
    person = pb.Person(email="0@example.com")
    inner = person
    for _ in range(4):
        inner = inner.family.add(email="1@example.com")
    mask(person, CONTACT)
    assert b"example.com" not in person.SerializeToString()


def test_masks_cover_what_is_under_them_and_only_customers() -> None:
    person = pb.Person(name="Ann", email="a@example.com", clerk="Bob")
    mask(person, frozenset({"user.name", "user.cont"}))
    assert (person.name, person.email, person.clerk) == ("", "a@example.com", "Bob")
    mask(person, frozenset())
    assert person.email


def test_the_last_digits_stay_where_the_phone_is_masked() -> None:
    customer = Customer(phone="+4930123456", phone_last_digits="3456")
    mask(customer, frozenset({"user.contact.phone_number"}))
    assert not customer.HasField("phone")
    assert customer.phone_last_digits == "3456"
    assert "phone" in customer.masked_fields


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (["person.email"], "person.email"),
        (["text", "person"], "person.email"),
        (["remarks.de"], ""),
        (["remarks"], "remarks.contact"),
        (["text", "nowhere", "text.deeper"], ""),
        (["*"], "people.email,person.email,remarks.contact"),
    ],
)
def test_what_may_not_be_read_may_not_be_written(paths: list[str], named: str) -> None:
    if not named:
        refuse_masked(CALLER, pb.Said.DESCRIPTOR, paths)
        return
    with pytest.raises(FieldsMasked) as refused:
        refuse_masked(CALLER, pb.Said.DESCRIPTOR, paths)
    assert set(named.split(",")) <= set(refused.value.metadata["fields"].split(","))
    assert refused.value.code == "PERMISSION_DENIED"
    refuse_masked(replace(CALLER, masks=frozenset()), pb.Said.DESCRIPTOR, paths)


@pytest.fixture
async def echo(tmp_path):  # type: ignore[no-untyped-def]
    async with echo_server(tmp_path) as running:
        yield running


async def test_answers_of_every_kind_are_masked(echo: Echo) -> None:
    said = pb.Said(times=1, person=pb.Person(name="Ann", email="a@example.com"))
    masked, clear = echo.auth("masked"), echo.auth("all")
    assert (await echo.stub.GetEcho(said, metadata=clear)).person.email == "a@example.com"
    answers = [
        await echo.stub.GetEcho(said, metadata=masked),
        *[a async for a in echo.stub.StreamEchoes(said, metadata=masked)],
        *[a async for a in echo.stub.Chat(iter([said]), metadata=masked)],
    ]
    for answer in answers:
        assert (answer.person.name, answer.person.email, answer.person.masked_fields) == (
            "Ann",
            "",
            ["email"],
        )
    both = await echo.stub.GetEcho(said, metadata=echo.auth("masked", "reader"))
    assert both.person.email, "a role that sees it makes it seen"
