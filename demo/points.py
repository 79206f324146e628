"""What the purchases were worth to those who made them: points, tiers, a reward, and what the shop owes."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from demo.history import FOUND, RISING, History
from demo.rest import Rest
from libs import clock

Number = int | Decimal
# Spending of all time in dollars: who bought for a few hundred in eighteen months is a good customer of this shop.
TIERS = {"BRONZE": 0, "SILVER": 100, "GOLD": 300, "PLATINUM": 1000}
REWARD = {
    "name": "Two dollars off",
    "kind": "DISCOUNT_AMOUNT",
    "amount": {"amountMinor": 200},
    "costPoints": 200,
}
POLL_SECONDS, PROGRESS_SECONDS = 0.02, 0.5
UNDER_WAY = {"QUEUED", "RUNNING"}
# How long nothing may happen while points are waited for, and how long a job or a rise may take.
STILL_SECONDS = 300.0
LATEST_SECONDS = 30.0


async def caught_up(rest: Rest, out: Console, wanted: int) -> None:
    """Waits until loyalty has worked in all orders: they give `wanted` points together."""
    program = await rest.get("/tiers/configuration")
    rules = (await rest.get(f"/loyalty/programs/{program['programId']}/rules"))["rules"]
    out.print("\n".join(f"The rule: {rule['name']}." for rule in rules))
    began = moved = time.monotonic()
    so_far = 0
    columns = (TextColumn("points"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=out, transient=not out.is_terminal) as bar:
        task = bar.add_task("points", total=wanted)
        while so_far < wanted:
            before, so_far = so_far, int((await _report(rest))["issuedPoints"])
            bar.update(task, completed=min(so_far, wanted))
            moved = moved if so_far == before else time.monotonic()
            if time.monotonic() - moved > STILL_SECONDS:
                raise RuntimeError(f"{so_far:,} of {wanted:,} points were given, and no more came")
            await asyncio.sleep(PROGRESS_SECONDS if so_far < wanted else 0)
    seconds = time.monotonic() - began
    out.print(f"Every order has given its points, {wanted:,} in all ({seconds:.1f} s after the last file).")


async def tiers(rest: Rest, out: Console) -> None:
    """Tiers by what is spent in this shop: previewed, set, and everybody moved."""
    configuration = {
        "period": "LIFETIME",
        "tiers": [
            {"name": name, "spendingMinor": least * 100} if least else {"name": name}
            for name, least in TIERS.items()
        ],
    }
    out.print(", ".join(f"{name} from {least:,} USD" if least else name for name, least in TIERS.items()))
    preview = await rest.post("/tiers/configuration/preview", {"configuration": configuration})
    moves = [move for move in preview["moves"] if move["fromTier"] != move["toTier"]]
    out.print(f"POST /tiers/configuration/preview: of {int(preview['members']):,} members")
    for move in moves:
        out.print(f"  {int(move['members']):,} would go from {move['fromTier']} to {move['toTier']}")
    if not moves:
        out.print("  nobody would move")
    made = await rest.put("/tiers/configuration", configuration)
    job_id = made.get("recalculationJobId")
    if not job_id:
        out.print("PUT /tiers/configuration: these are the tiers already.")
        return
    job = await _asked_until(rest, f"/jobs/loyalty/{job_id}", lambda job: job["state"] not in UNDER_WAY)
    out.print(
        f"PUT /tiers/configuration: {int(job['progressDone']):,} members judged, {job['state'].lower()}."
    )


async def rise(rest: Rest, out: Console, history: History, today: date) -> None:
    """Records an order of who lacks a little, and takes the time until they have risen."""
    one = history.rising(Decimal(TIERS["SILVER"]))
    customer = await rest.post("/customers/lookup", {"email": one.email})
    path = f"/customers/{customer['id']}"
    before = (await rest.get(f"{path}/loyalty"))["tier"]
    out.print(f"{one.first} {one.last}: {before['tier']}, spent {_money(before['spendingMinor'])} USD.")
    began = time.monotonic()
    result = (await rest.post("/orders", RISING.order(customer["id"], today)))["result"]
    out.print(f"POST /orders, {RISING.dollars} USD → {result['outcome']}")
    after = await _asked_until(rest, f"{path}/loyalty", lambda found: found["tier"]["tier"] == "SILVER")
    if before["tier"] != "SILVER":
        out.print(f"{after['tier']['tier']} {time.monotonic() - began:.2f} s after the order was sent.")
    (change, *_) = (await rest.get(f"{path}/tier-history"))["changes"]
    when = f"{change['changedAt'][:10]} {change['changedAt'][11:19]}"
    out.print(f"Their history: {when} {change['fromTier']} → {change['toTier']}, by {change['why'].lower()}.")


async def standings(rest: Rest, out: Console, history: History) -> list[tuple[str, Number, Number]]:
    """Members, spending and points by tier; members and points beside what the history says."""
    thresholds = {name: Decimal(least) for name, least in TIERS.items()}
    till = {history.found.number: FOUND, history.rising(thresholds["SILVER"]).number: RISING}
    expected = history.standings(thresholds, till)
    found = {row["tier"]: row for row in (await rest.get("/loyalty/reports/tiers"))["rows"]}
    table = Table("tier", "members", "points", "USD spent, by the history", box=None, pad_edge=False)
    rows: list[tuple[str, Number, Number]] = []
    for tier, theirs in expected.items():
        members = int(found[tier]["members"])
        points = int(found[tier]["points"]["outstandingPoints"])
        table.add_row(tier, f"{members:,}", f"{points:,}", f"{theirs.dollars:,}")
        rows += [
            (f"members in {tier}", members, theirs.members),
            (f"points in {tier}", points, theirs.points),
        ]
    out.print(table)
    return rows


async def reasons(rest: Rest, out: Console, customer: Mapping[str, Any]) -> None:
    """The newest entries of a member's ledger that gave points."""
    path = f"/customers/{customer['id']}/loyalty-transactions"
    entries = (await rest.get(path, types="EARN", pageSize=5))["transactions"]
    out.print(f"The newest of {customer['fullName']}:")
    for entry in entries:
        out.print(f"  {int(entry['openingBalance']):,} → {int(entry['closingBalance']):,}")
        for reason in entry["reasons"]:
            out.print(f"    +{reason['points']} by “{reason['name']}”: {reason['explanation']}")


async def reward(rest: Rest, out: Console, customer: Mapping[str, Any]) -> None:
    """Redeems a reward and cancels it, once for all runs; shows what the ledger says of both.

    Raises RuntimeError if the lots did not get back what they gave.
    """
    rewards = (await rest.get("/loyalty/rewards"))["rewards"]
    offer = next((one for one in rewards if one["name"] == REWARD["name"]), None)
    offer = offer or await rest.post("/loyalty/rewards", REWARD)
    out.print(f"{offer['name']}, {offer['costPoints']} points.")
    path = f"/customers/{customer['id']}"
    known = (await rest.get(f"{path}/redemptions"))["redemptions"]
    redeemed = next((one for one in known if one["reward"]["id"] == offer["id"]), None)
    redeemed = redeemed or await rest.post(f"{path}/loyalty/redeem/{offer['id']}")
    if redeemed["state"] == "ISSUED":
        out.print(f"POST /customers/…/loyalty/redeem/… → {redeemed['state']}, code {redeemed['code']}")
        redeemed = await rest.post(f"/loyalty/redemptions/{redeemed['code']}/cancel")
    out.print(f"POST /loyalty/redemptions/…/cancel → {redeemed['state']}")
    entries = (await rest.get(f"{path}/loyalty-transactions", types="REVERSE"))["transactions"]
    (back,) = [entry for entry in entries if entry.get("reversesId") == redeemed["transactionId"]]
    spent = await rest.get(f"/loyalty/transactions/{redeemed['transactionId']}")
    back = await rest.get(f"/loyalty/transactions/{back['id']}")
    table = Table("", "balance", box=None, pad_edge=False)
    table.add_row("before", f"{int(spent['openingBalance']):,}")
    table.add_row("between", f"{int(spent['closingBalance']):,}")
    table.add_row("after", f"{int(back['closingBalance']):,}")
    out.print(table)
    drawn = {lot["lotId"]: -int(lot["points"]) for lot in spent["lots"]}
    restored = {lot["lotId"]: int(lot["points"]) for lot in back["lots"]}
    if drawn != restored or spent["openingBalance"] != back["closingBalance"]:
        raise RuntimeError("the cancelled reward did not give back what it took")
    out.print(f"Each of the {len(drawn)} lots that it drew from has its points back, with its own expiry.")


async def owed(rest: Rest, out: Console) -> int:
    """What is outstanding, in points and in money; gives the points."""
    total = await _report(rest)
    table = Table("", "points", "USD", box=None, pad_edge=False)
    table.add_row("issued", f"{int(total['issuedPoints']):,}", "")
    table.add_row("redeemed", f"{int(total['redeemedPoints']):,}", _money(total["redeemedMinor"]))
    table.add_row("expired", f"{int(total['expiredPoints']):,}", "")
    table.add_row("outstanding", f"{int(total['outstandingPoints']):,}", _money(total["outstandingMinor"]))
    out.print(table)
    return int(total["outstandingPoints"])


async def _asked_until(rest: Rest, path: str, done: Callable[[Any], bool]) -> Any:
    """The first answer that is as wanted. Raises TimeoutError."""
    async with asyncio.timeout(LATEST_SECONDS):
        while True:
            found = await rest.get(path)
            if done(found):
                return found
            await asyncio.sleep(POLL_SECONDS)


async def _report(rest: Rest) -> dict[str, Any]:
    """What happened to points in ten years."""
    first = clock.now().date() - timedelta(days=3_650)
    found: dict[str, Any] = (
        await rest.get("/loyalty/reports/points", by="MONTH", firstDay=first.isoformat())
    )["total"]["points"]
    return found


def _money(minor: str | int) -> str:
    return f"{Decimal(int(minor)) / 100:,.2f}"
