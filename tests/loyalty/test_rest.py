"""Points and tiers over REST, as a shop's developer calls them."""

from typing import Any

import httpx

from tests.customers.shop import Shop
from tests.loyalty.members import buy, faults, has, join


async def call(client: httpx.AsyncClient, verb: str, path: str, status: int = 200, **body: Any) -> Any:
    """The JSON of an answer."""
    answer = await client.request(verb, f"/api/v1{path}", json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_points_program_by_hand(shop: Shop, rest: httpx.AsyncClient) -> None:
    member = await join(shop)
    (program,) = (await call(rest, "GET", f"/loyalty/programs?businessId={shop.id}"))["programs"]
    assert (program["name"], program["isDefault"], program["settings"]["expiry"]) == (
        "Points",
        True,
        "ROLLING",
    )
    rule = await call(
        rest,
        "POST",
        f"/loyalty/programs/{program['id']}/rules",
        201,
        name="Double on Mondays",
        multiplier={"factorPercent": 200},
        conditions={"weekdays": [1]},
    )
    order = {"placedAt": "2026-03-02T12:00:00Z", "totalMinor": "2540"}
    found = await call(
        rest, "POST", "/loyalty/simulate-earning", businessId=shop.id, customerId=member, order=order
    )
    assert found["points"] == "50"
    assert [reason["explanation"] for reason in found["reasons"]] == [
        "1 point for each 1.00 USD of 25.40 USD",
        "× 2 on 25 points",
    ]
    off = await call(rest, "PATCH", f"/loyalty/rules/{rule['id']}", active=False)
    assert off["active"] is False
    refusal = await call(
        rest, "POST", f"/loyalty/programs/{program['id']}/rules", 400, name="x", perAmount={"points": 0}
    )
    assert refusal["error"]["violations"][0]["field"] == "rule.perAmount.points"

    await buy(shop, member, 49_900)
    await has(shop, member, 499)
    mine = f"/customers/{member}"
    refusal = await call(rest, "POST", f"{mine}/loyalty/redeem", 400, businessId=shop.id, points="1000")
    assert refusal["error"]["reason"] == "INSUFFICIENT_POINTS"
    assert refusal["error"]["metadata"] == {"requested": "1000", "spendable": "499", "missing": "501"}
    spent = await call(rest, "POST", f"{mine}/loyalty/redeem", businessId=shop.id, points="200")
    held = await call(rest, "POST", f"{mine}/loyalty/holds", businessId=shop.id, points="100")
    assert held["state"] == "OPEN"
    captured = await call(rest, "POST", f"/loyalty/holds/{held['id']}/capture", points="60")
    assert (captured["state"], captured["capturedPoints"]) == ("CAPTURED", "60")
    await call(rest, "POST", f"/loyalty/transactions/{spent['id']}/reverse")
    refusal = await call(rest, "POST", f"{mine}/loyalty/adjust", 400, businessId=shop.id, points="5")
    assert refusal["error"]["violations"][0]["field"] == "reason"
    page = await call(rest, "GET", f"{mine}/loyalty-transactions?businessId={shop.id}&pageSize=2")
    assert [each["type"] for each in page["transactions"]] == ["REVERSE", "REDEEM"]
    assert page["nextPageToken"]

    found = await call(rest, "GET", f"{mine}/loyalty?businessId={shop.id}")
    assert (found["points"]["balance"], found["tier"]["tier"]) == ("439", "BRONZE")
    assert found["tier"]["progress"]["nextTier"] == "SILVER"
    over = await call(rest, "PUT", f"{mine}/tier-override", businessId=shop.id, tier="GOLD", reason="press")
    assert over["overridden"] is True
    over = await call(rest, "DELETE", f"{mine}/tier-override?businessId={shop.id}")
    assert over["tier"] == "BRONZE"
    changed = await call(
        rest, "PATCH", f"/tiers/configuration?businessId={shop.id}", graceMonths=1, rolling=True
    )
    assert (changed["graceMonths"], changed["rolling"], len(changed["tiers"])) == (1, True, 4)
    wrong = {
        "tiers": [{"name": "A"}, {"name": "B", "spendingMinor": "5"}, {"name": "C", "spendingMinor": "5"}]
    }
    refusal = await call(rest, "PUT", f"/tiers/configuration?businessId={shop.id}", 400, **wrong)
    assert refusal["error"]["violations"][0]["field"] == "configuration.tiers[2].spendingMinor"
    assert await faults(shop) == []
