"""What two customers did before they were one is the history of the one who stays, until they are two again."""

from typing import Any
from uuid import UUID

from libs.ids import new_id
from services.loyalty.ledger import queries as ledger
from services.loyalty.tiers import queries as tiers
from tests.loyalty.test_merges import Home, home
from tests.platform import Stack

PAGE = 3


async def _entries(house: Home, who: int) -> list[Any]:
    """All entries, page after page."""

    async def look(tx: Any, program: Any) -> list[Any]:
        line = await ledger.line_of(tx, program.program_id, house.customers[who])
        found: list[Any] = []
        while True:
            before = ledger.place(found[-1], line) if found else ()
            rows = await ledger.page(tx, line, size=PAGE, before=before)
            found += rows
            if len(rows) < PAGE:
                return found

    return list(await house.do(look))


async def _history(house: Home, who: int) -> list[tuple[UUID, int]]:
    return [(row.customer_id, row.points) for row in await _entries(house, who)]


async def _tiers(house: Home, who: int) -> list[str]:
    async def look(tx: Any, program: Any) -> list[str]:
        line = await ledger.line_of(tx, program.program_id, house.customers[who])
        return [row.to_tier for row in await tiers.changes(tx, line, 10, None)]

    return list(await house.do(look))


async def test_history_goes_with_the_customer_and_comes_back(stack: Stack) -> None:
    house, merge = await home(stack, 2), new_id()
    mine, theirs = house.customers
    await house.buys(0, 90_000)  # of the first: silver
    await house.buys(1, 1_000)
    await house.redeem(0, 30)
    await house.buys(3, 2_000)
    before = [await _history(house, who) for who in (0, 1)]
    assert before == [[(mine, -30), (mine, 900)], [(theirs, 20), (theirs, 10)]]
    assert [await _tiers(house, who) for who in (0, 1)] == [["SILVER"], []]
    await house.hear([house.merged(0, 1, merge)])
    after = await _history(house, 1)
    assert after[2:] == [(theirs, 20), (mine, -30), (theirs, 10), (mine, 900)]
    assert sorted(after[:2], key=lambda entry: entry[1]) == [(mine, -870), (theirs, 870)]
    assert {row.source for row in (await _entries(house, 1))[:2]} == {f"merge:{merge}"}
    assert await _tiers(house, 1) == ["SILVER", "SILVER"]  # one of each
    await house.hear([house.unmerged(0, 1, merge)])
    assert [(await _history(house, who))[2:] for who in (0, 1)] == before
    assert await _tiers(house, 0) == ["SILVER"]
