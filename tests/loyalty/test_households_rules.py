"""What members of a household draw on each other: own points first, then what lapses first, and all of it goes back."""

from datetime import UTC, datetime, timedelta
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.loyalty.households import rules
from services.loyalty.households.rules import Origin
from services.loyalty.ledger import rules as ledger
from services.loyalty.ledger.rules import Account, Book, Entry, Terms
from services.loyalty.problems import HouseholdFull, InsufficientPoints

START = datetime(2026, 1, 1, tzinfo=UTC)
_numbers = count(1)


def book(*lots: tuple[int, int | None], terms: Terms | None = None) -> Book:
    """A book with lots of so many points that lapse after so many days."""
    made = Book(
        account=Account(account_id=UUID(int=next(_numbers))),
        lots={},
        holds={},
        now=START,
        terms=terms or Terms(),
        new_id=lambda: UUID(int=next(_numbers)),
    )
    for points, days in lots:
        until = None if days is None else START + timedelta(days=days)
        made.earn(points, available_at=START, expires_at=until)
    return made


def left(of: Book) -> list[int]:
    return [lot.remaining for lot in of.lots.values()]


def agree(*books: Book) -> None:
    for each in books:
        entries: list[Entry] = each.entries
        assert ledger.faults(each.account, each.lots.values(), each.holds.values(), entries) == []
        for lot in each.lots.values():
            moved = sum(points for (_, lot_id), points in each.drawn.items() if lot_id == lot.lot_id)
            assert lot.remaining == lot.points + moved


def back(taker: Book, *givers: Book) -> list[rules.Pair]:
    """Gives back what is free; each pooled lot knows where it came from."""
    whose = {lot.lot_id: giver for giver in givers for lot in giver.lots.values()}
    origins = {
        lot.lot_id: Origin(
            account_id=whose[lot.origin_lot_id].account.account_id, lot_id=lot.origin_lot_id, source="s"
        )
        for lot in taker.lots.values()
        if lot.pooled and lot.origin_lot_id
    }
    return rules.give_back(taker, {each.account.account_id: each for each in givers}, origins)


def test_own_points_first_then_what_lapses_first_of_all() -> None:
    ann, ben, eve = book((10, 1)), book((20, 30), (20, 5)), book((20, None), (20, 10))
    assert rules.spendable(ann, [ben, eve]) == 90
    pairs = rules.draw(ann, [ben, eve], 45, "household:1")
    assert [(pair.giver, pair.taker) for pair in pairs] == [
        (ben.account.account_id, ann.account.account_id),
        (eve.account.account_id, ann.account.account_id),
    ]
    assert (left(ben), left(eve)) == ([20, 0], [20, 5])
    assert {entry.source for entry in ann.entries[1:]} == {"household:1"}
    spent = ann.redeem(45)
    assert (ann.account.balance, ann.account.lifetime, ben.account.lifetime) == (0, 10, 40)
    share = {lot_id: -points for (entry, lot_id), points in ann.drawn.items() if entry == spent.entry_id}
    ann.restore(spent.entry_id, 20, share)  # a part: others come first, and what lapses last
    assert len(back(ann, ben, eve)) == 2
    assert (left(ann), left(ben), left(eve)) == ([0, 0, 0], [20, 5], [20, 20])
    agree(ann, ben, eve)


def test_nobody_is_asked_where_own_points_do_and_nobody_who_owes_is_helped() -> None:
    ann, ben = book((10, 5)), book((20, 1))
    assert rules.draw(ann, [ben], 10, "s") == []
    with pytest.raises(InsufficientPoints) as refused:
        rules.draw(ann, [ben], 31, "s")
    assert refused.value.metadata == {"requested": "31", "spendable": "30", "missing": "1"}
    owing = book((10, 5), terms=Terms(return_policy="NEGATIVE"))
    owing.reclaim(UUID(int=1), 15)
    assert rules.spendable(owing, [ben]) == 0


def test_points_of_others_pay_no_debt_and_are_not_given_away() -> None:
    ann, ben = book((10, 5), terms=Terms(return_policy="NEGATIVE")), book((20, 9))
    rules.draw(ann, [ben], 30, "s")
    hold = ann.hold(30, expires_at=START + timedelta(hours=1))
    ann.reclaim(UUID(int=1), 15)
    ann.release(hold)
    with pytest.raises(InsufficientPoints):
        ann.send(11, UUID(int=1), UUID(int=2))
    back(ann, ben)
    assert (left(ben), ann.account.balance, ann.account.debt) == ([20], -5, 15)
    agree(ann, ben)


def test_what_lapsed_meanwhile_follows_the_program() -> None:
    for extended, wanted in ((0, 0), (3, 20)):
        terms = Terms(returned_points=timedelta(days=extended))
        ann, ben = book(terms=terms), book((20, 2), terms=terms)
        rules.draw(ann, [ben], 20, "s")
        spent = ann.redeem(20)
        share = {lot_id: -points for (entry, lot_id), points in ann.drawn.items() if entry == spent.entry_id}
        ann.now = ben.now = START + timedelta(days=4)
        ann.restore(spent.entry_id, 20, share)
        back(ann, ben)
        assert (ann.account.balance, ben.account.balance) == (0, wanted)
        agree(ann, ben)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), max_size=4), min_size=2, max_size=4),
    st.lists(st.integers(1, 120), min_size=1, max_size=4),
)
def test_whatever_is_drawn_goes_back_to_where_it_was(
    lots: list[list[tuple[int, int]]], amounts: list[int]
) -> None:
    ann, *others = (book(*each) for each in lots)
    before = [left(each) for each in others], ann.account.balance
    for amount in amounts:
        there = rules.spendable(ann, others)
        assert there == sum(each.account.balance for each in (ann, *others))
        if amount > there:
            continue
        rules.draw(ann, others, amount, "s")
        spent = ann.redeem(amount)
        agree(ann, *others)
        share = {lot_id: -points for (entry, lot_id), points in ann.drawn.items() if entry == spent.entry_id}
        ann.restore(spent.entry_id, amount, share)
        back(ann, *others)
        agree(ann, *others)
    assert ([left(each) for each in others], ann.account.balance) == before


def test_a_code_is_read_in_any_form_and_a_household_has_an_end() -> None:
    code = rules.code_of(bytes(range(10)))
    assert len(code) == 16
    assert rules.plain(f" {code[:4].lower()}-{code[4:]} ") == code
    rules.make_room(5, 6)
    with pytest.raises(HouseholdFull):
        rules.make_room(6, 6)
