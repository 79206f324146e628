"""What must hold of any ledger once it is quiet: each deed was done once, and all that is kept of points agrees."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.caller import Caller, acting_as
from libs.envelope import Letter, read
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.ledger import checks as ledger_checks
from services.loyalty.rewards import checks as reward_checks
from tests.chaos.deeds import Deed
from tests.chaos.purchases_checker import database_of
from tests.customers.shop import Shop
from tests.flows.looking import Row, rows
from tests.platform import Stack

# TransactionType, HoldState
EARN, REDEEM, EXPIRE, ADJUST, REVERSE, TRANSFER = 1, 2, 3, 4, 5, 6
OPEN, CAPTURED, RELEASED, LAPSED = 1, 2, 3, 4
TABLES = ("accounts", "entries", "lots", "holds", "idempotency_keys")
_POINTS = {
    "customers.points.earned": events.PointsEarned,
    "customers.points.redeemed": events.PointsRedeemed,
    "customers.points.adjusted": events.PointsAdjusted,
    "customers.points.reversed": events.PointsReversed,
    "customers.points.transferred": events.PointsTransferred,
}
# What is compared of an entry: kind, program, customer, points, what it is about.
Line = tuple[int, str, str, int, str]


@dataclass
class Kept:
    """What loyalty keeps of a tenant, table by table, and what it told."""

    tables: dict[str, list[Row]]
    sent: list[Letter]

    def __getattr__(self, table: str) -> list[Row]:
        try:
            found: list[Row] = self.__dict__["tables"][table]
        except KeyError:
            raise AttributeError(table) from None
        return found


async def kept_of(stack: Stack, tenant_id: UUID, sent: list[Letter], tables: Iterable[str]) -> Kept:
    """All of these tables, read as the administrator."""
    found = {
        table: await rows(stack, f"select * from loyalty.{table} where tenant_id = %s", tenant_id)
        for table in tables
    }
    return Kept(found, sent)


async def own_faults(stack: Stack, shop: Shop) -> list[str]:
    """What the product's own proofs find."""
    itself = Caller(tenant_id=shop.tenant.id, subject="loyalty", kind="service", service="loyalty")
    found = []
    async with database_of(stack, "loyalty") as database:
        with acting_as(itself):
            async with database.read() as tx:
                for each in (ledger_checks, reward_checks):
                    found += [
                        f"{row.what} {row.id}: {row.facts}" for row in await each.faults(tx, UUID(shop.id))
                    ]
    return found


def happened_of(deeds: Sequence[Deed], kept: Kept) -> tuple[list[Deed], list[str]]:
    """The deeds that were done, answered or not, each with the id of what came of it; and doubted ones are few."""
    found = []
    claims: dict[str, list[str]] = defaultdict(list)
    for row in kept.idempotency_keys:
        claims[row["request_id"]].append(str(row["resource_id"]))
    happened = []
    for deed in deeds:
        if not deed.request_id:
            happened.append(deed)
            continue
        ids = claims.pop(deed.request_id, [])
        if len(ids) > 1:
            found.append(f"{deed.rpc} {ids} happened {len(ids)} times")
        if deed.id and ids != [deed.id]:
            found.append(f"{deed.rpc} {deed.id} was answered, and is {ids or 'lost'}")
        if deed.refused and ids:
            found.append(f"{deed.rpc} was refused as {deed.refused}, and is {ids}")
        if ids:
            deed.id = deed.id or ids[0]
        if deed.id:
            happened.append(deed)
    return happened, found


def lines(happened: Sequence[Deed], kept: Kept) -> Counter[Line]:
    """The entries that deeds about points must have made."""
    holds = {str(row["hold_id"]): row["points"] for row in kept.holds}
    found: Counter[Line] = Counter()
    for deed in happened:
        asked: Any = deed.request
        about: Any = deed.about.request if deed.about else None
        match deed.rpc:
            case "AdjustPoints":
                found[ADJUST, asked.program_id, asked.customer_id, asked.points, deed.id] += 1
            case "RedeemPoints":
                found[REDEEM, asked.program_id, asked.customer_id, -asked.points, deed.id] += 1
            case "ReverseRedemption":
                found[REVERSE, about.program_id, about.customer_id, about.points, asked.id] += 1
            case "CaptureHold":
                points = asked.points or holds.get(asked.id, 0)
                found[REDEEM, about.program_id, about.customer_id, -points, f"hold {asked.id}"] += 1
            case "TransferPoints":
                ends = asked.from_customer_id, asked.to_customer_id
                found[TRANSFER, asked.program_id, ends[0], -asked.points, deed.id] += 1
                found[TRANSFER, asked.program_id, ends[1], asked.points, f"from {deed.id}"] += 1
    return found


def entries(wanted: Counter[Line], kept: Kept, besides: Callable[[Row], bool]) -> list[str]:
    """The ledger has these entries once, and no others but those that `besides` lets through."""
    whose = owners(kept)
    seen: Counter[Line] = Counter()
    for row in kept.entries:
        if besides(row):
            continue
        about = str(row["entry_id"])
        if row["kind"] == EARN:
            about = row["source"]
        elif row["hold_id"] is not None:
            about = f"hold {row['hold_id']}"
        elif row["reverses_id"] is not None:
            about = str(row["reverses_id"])
        elif row["kind"] == TRANSFER and row["points"] > 0:
            about = f"from {row['counterpart_id']}"
        program_id, customer_id = whose[row["account_id"]]
        seen[row["kind"], program_id, customer_id, row["points"], about] += 1
    return [f"no entry {each}" for each in wanted - seen] + [
        f"an entry {each} too many" for each in seen - wanted
    ]


def recounted(kept: Kept) -> list[str]:
    """Ledger = lots = balance, and holds = held: counted once more, without the product's own proofs."""
    sums: dict[UUID, Counter[str]] = defaultdict(Counter)
    for row in kept.entries:
        sums[row["account_id"]]["entries"] += row["balance_points"]
    for row in kept.lots:
        sums[row["account_id"]]["lots"] += row["remaining"]
        sums[row["account_id"]]["held"] += row["held"]
        sums[row["account_id"]]["overdrawn"] += row["remaining"] < 0 or row["held"] > row["remaining"]
    for row in kept.holds:
        sums[row["account_id"]]["holds"] += row["points"] if row["state"] == OPEN else 0
    found = []
    for row in kept.accounts:
        counted = sums.pop(row["account_id"], Counter())
        shown = (counted["entries"], counted["lots"], counted["held"], counted["holds"], counted["overdrawn"])
        if (
            shown != (row["balance"], row["balance"] + row["debt"], row["held"], row["held"], 0)
            or row["pending"]
        ):
            found.append(f"account {row['account_id']} recounted is {dict(counted)}, it says {row}")
    return found + [f"points of an account {each}, which is not there" for each in sums]


def holds(happened: Sequence[Deed], kept: Kept) -> list[str]:
    """Each hold that was asked for is there once, and ended as was asked last."""
    found, seen = [], {str(row["hold_id"]): row for row in kept.holds}
    asked = {deed.id: deed for deed in happened if deed.rpc == "HoldPoints"}
    found += [f"hold {each} is lost" for each in asked.keys() - seen.keys()]
    found += [f"hold {each} was never asked for" for each in seen.keys() - asked.keys()]
    ends = {
        deed.request.id: CAPTURED if deed.rpc == "CaptureHold" else RELEASED
        for deed in happened
        if deed.rpc in {"CaptureHold", "ReleaseHold"}
    }
    for hold_id in asked.keys() & seen.keys():
        row, end = seen[hold_id], ends.get(hold_id)
        allowed = {end} if end else {OPEN, LAPSED}
        if row["points"] != asked[hold_id].request.points or row["state"] not in allowed:
            found.append(f"hold {hold_id} is in state {row['state']}, wanted {allowed}")
    return found


def told(kept: Kept) -> list[str]:
    """Each entry was told once; what lapsed of an account at once is told in one event, by the last of its entries."""
    counted: Counter[str] = Counter()
    lapsed: Counter[str] = Counter()
    for letter in kept.sent:
        if letter.subject in _POINTS:
            counted[read(letter, _POINTS[letter.subject]).message.transaction_id] += 1
        elif letter.subject == "customers.points.expired":
            message = read(letter, events.PointsExpired).message
            lapsed[letter.headers["ce-subject"]] += message.points
            counted[message.transaction_id] += 1
    entries = {str(row["entry_id"]) for row in kept.entries}
    plain = {str(row["entry_id"]) for row in kept.entries if row["kind"] != EXPIRE}
    found = [f"entry {each} was not told" for each in plain - counted.keys()]
    found += [f"entry {each} was told and is not there" for each in counted.keys() - entries]
    found += [f"entry {each} was told {times} times" for each, times in counted.items() if times > 1]
    gone: Counter[str] = Counter()
    for row in kept.entries:
        if row["kind"] == EXPIRE:
            gone[str(row["account_id"])] += row["points"]
    return found + [
        f"of account {each} {gone[each]} points lapsed, {lapsed[each]} were told"
        for each in gone.keys() | lapsed.keys()
        if gone[each] != lapsed[each]
    ]


def owners(kept: Kept) -> dict[UUID, tuple[str, str]]:
    """Program and customer of each account."""
    return {row["account_id"]: (str(row["program_id"]), str(row["customer_id"])) for row in kept.accounts}
