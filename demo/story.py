"""The demonstration itself: files are imported, somebody is found, an order arrives, and the totals are checked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from demo import files, points
from demo.history import FOUND, RISING, History
from demo.rest import Rest
from libs import clock, stream

SOURCE = "cdnow"
NAME = "CDNOW"
# How long the events of one order may take to arrive.
EVENT_SECONDS = 10.0
Mint = Callable[[UUID], str]
Number = points.Number


async def tell(
    rest: Rest,
    mint: Mint,
    nats: Client,
    prefix: str,
    tenant: UUID,
    out: Console,
    history: History | None = None,
) -> bool:
    """Tells the whole story; True if all totals are those of the purchase history.

    `mint` makes a token for one business. Raises Refused.
    """
    today, history = clock.now().date(), history or History()
    _head(out, "1", "A business")
    rest.use(mint(await _business(rest, out)))
    _head(out, "2", "Its customers, from a file")
    await _import(rest, out, "customers.csv", files.customers_file(history), "CUSTOMERS")
    _head(out, "3", "Its orders, from another")
    weeks = history.weeks_until(today)
    out.print(f"All purchases move by {weeks:,} weeks, so that the last one was within the last seven days.")
    await _import(rest, out, "orders.csv", files.orders_file(history, weeks), "ORDERS")
    _head(out, "4", "Somebody, found by a name with a slip in it")
    customer = await _found(rest, out, history)
    _head(out, "5", "What is known of them")
    await _profile(rest, out, customer)
    _head(out, "6", "An order arrives over REST, and tells everybody who wants to know")
    await _order(rest, nats, prefix, tenant, out, customer, today)
    _head(out, "7", "Points for all of it")
    await points.caught_up(rest, out, history.points(FOUND))
    _head(out, "8", "Tiers that fit the shop")
    await points.tiers(rest, out)
    _head(out, "9", "One more order, and somebody rises")
    await points.rise(rest, out, history, today)
    _head(out, "10", "Who stands where")
    standings = await points.standings(rest, out, history)
    _head(out, "11", "Why each point was given")
    await points.reasons(rest, out, customer)
    _head(out, "12", "A reward, redeemed and cancelled")
    await points.reward(rest, out, customer)
    _head(out, "13", "What the shop owes")
    owed = await points.owed(rest, out)
    _head(out, "14", "Does it add up?")
    whole = history.points(FOUND, RISING)
    return await _totals(rest, out, history, [*standings, ("points", owed, whole)])


def _head(out: Console, number: str, text: str) -> None:
    out.print(f"\n[bold]{number}. {text}[/]")


async def _business(rest: Rest, out: Console) -> UUID:
    known = [one for one in (await rest.get("/businesses"))["businesses"] if one["name"] == NAME]
    if known:
        out.print(f"{NAME} is there already: {known[0]['id']}")
        return UUID(known[0]["id"])
    made = await rest.post(
        "/businesses",
        {"name": NAME, "currency": "USD", "country": "US", "timeZone": "America/New_York", "language": "en"},
    )
    out.print(f"{NAME}: {made['id']}")
    return UUID(made["id"])


# --- imports -------------------------------------------------------------------------------------------------


async def _import(rest: Rest, out: Console, name: str, content: bytes, kind: str) -> None:
    """Uploads a file, says how it is read, imports it, and says what was refused and why."""
    how = {"kind": kind, "source": SOURCE, "fileName": name, "duplicates": "SKIP"}
    made = await rest.upload("/imports", content, "text/csv", **how)
    layout = made["layout"]
    out.print(
        f"{name}: {len(content):,} bytes, {layout['encoding']}, columns divided by {layout['delimiter']!r}:"
    )
    for column in made["columns"]:
        out.print(f"  {column['name']:15} → {column.get('target') or '(left out)'}")
    await rest.post(f"/imports/{made['id']}/start")
    progress = await _watched(rest, out, made["id"], name)
    counts = {key: int(value) for key, value in progress.items() if _is_count(key, value)}
    out.print(", ".join(f"{count:,} {_words(key)}" for key, count in counts.items() if count))
    if counts.get("rowsRefused"):
        await _refused(rest, out, made["id"])
    if progress["state"] != "COMPLETED":
        raise RuntimeError(f"the import ended as {progress['state']}")


async def _watched(rest: Rest, out: Console, import_id: str, name: str) -> dict[str, Any]:
    last: dict[str, Any] = {}
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, transient=not out.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        async for last in rest.lines(f"/imports/{import_id}/progress"):
            total = last.get("rowsTotal")
            bar.update(task, completed=int(last["rowsDone"]), total=int(total) if total else None)
    return last


def _is_count(key: str, value: object) -> bool:
    return key.startswith(("customers", "orders", "rowsRefused")) and str(value).isdigit()


def _words(key: str) -> str:
    """ "customersCreated" → "customers created"."""
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in key)


async def _refused(rest: Rest, out: Console, import_id: str) -> None:
    table = Table("row", "column", "reason", "expected", box=None, pad_edge=False)
    for error in (await rest.get(f"/imports/{import_id}/errors", pageSize=20))["errors"]:
        table.add_row(str(error["row"]), error.get("column", ""), error["reason"], error["expected"])
    out.print(table)


# --- a customer ----------------------------------------------------------------------------------------------


async def _found(rest: Rest, out: Console, history: History) -> dict[str, Any]:
    first, last = history.found.first, history.found.last
    query = f"{last[:2]}{last[3:]} {first}"  # a letter is missing
    found = (await rest.post("/customers/search", {"query": query, "pageSize": 3}))["customers"]
    out.print(f"Searching {query!r}:")
    for one in found:
        out.print(f"  {one['fullName']}, {one['email']}, {one['phone']}")
    return dict(found[0])


async def _profile(rest: Rest, out: Console, customer: dict[str, Any]) -> None:
    metrics = await rest.get(f"/customers/{customer['id']}/metrics")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("orders", str(metrics["ordersCompleted"]))
    for key in ("totalSpent", "averageOrder"):
        table.add_row(_words(key), f"{_dollars(metrics[key]):,} USD")
    for key in ("visits", "items", "favouriteCategory"):
        table.add_row(_words(key), str(metrics.get(key, "")))
    table.add_row("first order", metrics["firstOrderAt"][:10])
    table.add_row("last order", metrics["lastOrderAt"][:10])
    out.print(table)
    out.print("The newest entries of the timeline:")
    for entry in (await rest.get(f"/customers/{customer['id']}/timeline", pageSize=5))["entries"]:
        out.print(f"  {entry['occurredAt'][:10]} {entry['kind'].lower()}{_told(entry)}")


def _told(entry: dict[str, Any]) -> str:
    if order := entry.get("order"):
        return f", {Decimal(order['totalMinor']) / 100:,} USD"
    if report := entry.get("report"):
        points = report["facts"].get("points")
        return f": {report['event'].removeprefix('customers.')}" + (
            f", {int(points):+,} points" if points else ""
        )
    return ""


def _dollars(money: dict[str, Any]) -> Decimal:
    return Decimal(money.get("amountMinor", 0)) / 100


# --- an order ------------------------------------------------------------------------------------------------


async def _order(
    rest: Rest, nats: Client, prefix: str, tenant: UUID, out: Console, customer: dict[str, Any], today: date
) -> None:
    """Records today's order of the customer, and shows what goes out."""
    async with _events(nats, prefix, tenant) as events:
        result = (await rest.post("/orders", FOUND.order(customer["id"], today)))["result"]
        out.print(f"POST /orders → {result['outcome']}, order {result['orderId']}")
        if result["outcome"] == "UNCHANGED":
            out.print("It was recorded earlier today, so nothing is told again.")
            return
        wanted = {"customers.order.recorded", "customers.order.completed"}
        if result["outcome"] == "UPDATED":
            wanted.discard("customers.order.completed")  # once for each order
        async with asyncio.timeout(EVENT_SECONDS):
            while wanted:
                subject, about = await anext(events)
                if about == result["orderId"]:
                    out.print(f"  event {subject}, about order {about}")
                    wanted.discard(subject)
    metrics = await rest.get(f"/customers/{customer['id']}/metrics")
    out.print(
        f"Their metrics say so at once: {metrics['ordersCompleted']} orders,"
        f" {_dollars(metrics['totalSpent']):,} USD."
    )


@asynccontextmanager
async def _events(nats: Client, prefix: str, tenant: UUID) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    """What goes out of the tenant from now on, as (subject, id of what it is about)."""
    subscription = await nats.jetstream().subscribe(
        f"{prefix}customers.*.*.{tenant}",
        stream=stream.stream_name(prefix),
        ordered_consumer=True,
        config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW),
    )

    async def told() -> AsyncIterator[tuple[str, str]]:
        async for message in subscription.messages:
            subject = message.subject.removeprefix(prefix).rpartition(".")[0]
            yield subject, (message.headers or {}).get("ce-subject", "")

    try:
        yield told()
    finally:
        await subscription.unsubscribe()


# --- totals --------------------------------------------------------------------------------------------------


async def _totals(
    rest: Rest, out: Console, history: History, more: Sequence[tuple[str, Number, Number]]
) -> bool:
    """Counts everything through the API, order by order, and sets it beside the purchase history."""
    customers = int((await rest.get("/customers/stats"))["total"])
    count, minor, token = 0, 0, ""
    while True:
        page = await rest.get("/orders", source=SOURCE, pageSize=1000, pageToken=token)
        count += len(page["orders"])
        minor += sum(int(order["total"]["amountMinor"]) for order in page["orders"])
        token = page.get("nextPageToken", "")
        if not token:
            break
    rows: list[tuple[str, Number, Number]] = [
        ("customers", customers, history.customers),
        ("purchases", count, len(history.purchases)),
        ("dollars", Decimal(minor) / 100, history.dollars),
        *more,
    ]
    table = Table("", "in Regulars", "in the history", box=None, pad_edge=False)
    for name, ours, theirs in rows:
        table.add_row(name, f"{ours:,}", f"{theirs:,}")
    out.print(table)
    right = all(ours == theirs for _, ours, theirs in rows)
    out.print("[green]It adds up.[/]" if right else "[red]It does not add up.[/]")
    return right
