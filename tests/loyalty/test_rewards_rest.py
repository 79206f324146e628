"""Rewards over REST, as a shop's developer, a cashier with two tills and a member call them."""

import httpx

from tests.customers.shop import Shop
from tests.loyalty.catalogue import faults
from tests.loyalty.members import give, join
from tests.loyalty.test_rest import call


async def test_rewards_by_hand(shop: Shop, rest: httpx.AsyncClient) -> None:
    member = await join(shop)
    await give(shop, member, 300)
    here = f"businessId={shop.id}"
    pool = await call(rest, "POST", f"/loyalty/code-pools?{here}", 201, name="Cinema")
    batch = await call(
        rest, "POST", f"/loyalty/code-pools/{pool['id']}/codes", codes=["CIN-1", "CIN-2", "cin-1"]
    )
    assert (batch["added"], batch["duplicates"], batch["codePool"]["codesLeft"]) == (2, [2], "2")
    refusal = await call(
        rest, "POST", f"/loyalty/rewards?{here}", 400, name="Tea", kind="FREE_PRODUCT", costPoints="50"
    )
    assert refusal["error"]["violations"][0]["field"] == "reward.sku"
    ticket = await call(
        rest,
        "POST",
        f"/loyalty/rewards?{here}",
        201,
        name="Cinema ticket",
        kind="VOUCHER_CODE",
        costPoints="100",
        codePoolId=pool["id"],
        perMemberLimit=2,
        stock="10",
    )
    assert (ticket["stockLeft"], ticket["active"]) == ("2", True)
    changed = await call(rest, "PATCH", f"/loyalty/rewards/{ticket['id']}", terms="One each day", stock=None)
    assert (changed["terms"], "stock" in changed, changed["name"]) == ("One each day", False, "Cinema ticket")

    mine = f"/customers/{member}"
    got = await call(rest, "POST", f"{mine}/loyalty/redeem/{ticket['id']}", requestId="one")
    assert (got["code"], got["state"], got["points"]) == ("CIN-1", "ISSUED", "100")
    assert await call(rest, "POST", f"{mine}/loyalty/redeem/{ticket['id']}", requestId="one") == got
    used = await call(rest, "POST", "/loyalty/redemptions/cin-1/use", place="Till 1")
    assert used["state"] == "USED"
    refusal = await call(rest, "POST", "/loyalty/redemptions/CIN-1/use", 400, place="Till 2")
    assert refusal["error"]["reason"] == "REDEMPTION_USED"
    assert refusal["error"]["metadata"]["place"] == "Till 1"
    other = await call(rest, "POST", f"{mine}/loyalty/redeem/{ticket['id']}")
    refusal = await call(rest, "POST", f"{mine}/loyalty/redeem/{ticket['id']}", 400)
    assert refusal["error"]["reason"] == "LIMIT_REACHED"
    back = await call(rest, "POST", f"/loyalty/redemptions/{other['code']}/cancel")
    assert back["state"] == "CANCELLED"
    found = await call(rest, "GET", f"{mine}/redemptions?{here}")
    assert [each["state"] for each in found["redemptions"]] == ["CANCELLED", "USED"]
    assert (await rest.delete(f"/api/v1/loyalty/rewards/{ticket['id']}")).status_code == 204
    assert not (await call(rest, "GET", f"/loyalty/rewards?{here}")).get("rewards")
    assert await faults(shop) == []


async def test_a_member_by_hand(shop: Shop, rest: httpx.AsyncClient) -> None:
    member = await join(shop)
    await give(shop, member, 60)
    reward = await call(
        rest,
        "POST",
        f"/loyalty/rewards?businessId={shop.id}",
        201,
        name="Free shipping",
        kind="FREE_SHIPPING",
        costPoints="50",
    )
    token = shop.tenant.token(businesses=[shop.id], customer=member)
    me = {"authorization": f"Bearer {token}"}
    seen = (await rest.get("/api/v1/me/loyalty/rewards", headers=me)).json()["rewards"]
    assert [(each["reward"]["name"], each["redeemable"]) for each in seen] == [("Free shipping", True)]
    answer = await rest.post(f"/api/v1/me/loyalty/redeem/{reward['id']}", json={}, headers=me)
    assert (answer.status_code, answer.json()["state"]) == (200, "ISSUED")
    answer = await rest.post(f"/api/v1/me/loyalty/redeem/{reward['id']}", json={}, headers=me)
    assert answer.json()["error"]["metadata"]["missing"] == "40"
    listed = (await rest.get("/api/v1/me/loyalty/redemptions", headers=me)).json()["redemptions"]
    assert [each["points"] for each in listed] == ["50"]
    staff = await rest.get(f"/api/v1/customers/{member}/redemptions", headers=me)
    assert staff.status_code == 403
