"""What must hold of households once it is quiet: points only moved among members, and who is inside was told."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from libs.envelope import Letter, read
from regulars.loyalty.v1 import events_pb2 as events
from tests.chaos import ledger_checker
from tests.chaos.deeds import Deed
from tests.chaos.households import Households
from tests.chaos.ledger_checker import EXPIRE, TRANSFER, Kept, owners
from tests.flows.looking import Row
from tests.loyalty import members

TABLES = (*ledger_checker.TABLES, "allocations", "households", "household_members")
_SUBJECT = "customers.household."
_KINDS: dict[str, Any] = {
    "created": events.HouseholdCreated,
    "joined": events.HouseholdJoined,
    "left": events.HouseholdLeft,
    "closed": events.HouseholdClosed,
}
_JOINING = {"AddHouseholdMember", "JoinHousehold"}
_CREATING = {"CreateHousehold", "CreateMyHousehold"}
Place = tuple[str, str]  # household, customer


def faults(work: Households, kept: Kept) -> list[str]:
    """Everything that is not as it was asked, or not the same in two places."""
    happened, found = ledger_checker.happened_of(work.deeds, kept)
    wanted = ledger_checker.lines(happened, kept)
    found += ledger_checker.entries(wanted, kept, besides=lambda row: row["kind"] in {TRANSFER, EXPIRE})
    found += _in_all(happened, kept)
    found += _drawn(work, kept)
    found += _lapsed(kept)
    found += ledger_checker.recounted(kept)
    found += ledger_checker.holds(happened, kept)
    found += ledger_checker.told(kept)
    found += _inside(happened, kept)
    return found


async def shown_faults(work: Households, kept: Kept) -> list[str]:
    """Balances that members are shown, and are not what is kept."""
    now = {str(row["customer_id"]): row["balance"] for row in kept.accounts}
    found = []
    for each in work.family.customers:
        shown = await members.balance(work.shop, each)
        if shown.balance != now.get(each, 0):
            found.append(f"{each} is shown {shown.balance}, they have {now.get(each, 0)}")
    return found


def _in_all(happened: Sequence[Deed], kept: Kept) -> list[str]:
    """What all members have is what was given, less what was spent and not reversed, less what lapsed."""
    sums: Counter[str] = Counter()
    holds = {str(row["hold_id"]): row["points"] for row in kept.holds}
    for deed in happened:
        asked: Any = deed.request
        match deed.rpc:
            case "AdjustPoints":
                sums["given"] += asked.points
            case "RedeemPoints":
                sums["spent"] += asked.points
            case "CaptureHold":
                sums["spent"] += asked.points or holds.get(asked.id, 0)
            case "ReverseRedemption" if deed.about is not None:
                sums["reversed"] += deed.about.request.points
    sums["lapsed"] = -sum(row["points"] for row in kept.entries if row["kind"] == EXPIRE)
    there = sum(row["balance"] for row in kept.accounts)
    wanted = sums["given"] - sums["spent"] + sums["reversed"] - sums["lapsed"]
    found = [] if there == wanted else [f"all have {there}, of {dict(sums)} there should be {wanted}"]
    found += [
        f"account {row['account_id']} was below zero by entry {row['entry_id']}"
        for row in kept.entries
        if row["opening_balance"] + row["balance_points"] < 0
    ]
    return found + [
        f"nothing was {each} at all" for each in ("spent", "reversed", "lapsed") if not sums[each]
    ]


def _drawn(work: Households, kept: Kept) -> list[str]:
    """What one member gave another got, for the same household; and whatever was not spent is home again.

    So what somebody gave and did not get back is what others spent of it, or what lapsed on the way.
    """
    by_id = {row["entry_id"]: row for row in kept.entries}
    known = {f"household:{row['household_id']}" for row in kept.households}
    moves = [row for row in kept.entries if row["kind"] == TRANSFER]
    found = [] if moves else ["nobody drew on anybody"]
    for row in moves:
        other = by_id.get(row["counterpart_id"])
        if (
            other is None
            or (other["points"], other["counterpart_id"]) != (-row["points"], row["entry_id"])
            or other["source"] != row["source"]
            or other["account_id"] == row["account_id"]
        ):
            found.append(f"transfer {row['entry_id']} has no other side")
        if row["source"] not in known:
            found.append(f"transfer {row['entry_id']} is for {row['source']}")
    net: Counter[str] = Counter()
    for row in moves:
        net[row["source"]] += row["points"]
    found += [f"transfers for {source} come to {points}" for source, points in net.items() if points]
    whose = owners(kept)
    found += [
        f"{whose[row['account_id']][1]} has {row['remaining']} of others in lot {row['lot_id']}"
        for row in kept.lots
        if row["pooled"] and row["remaining"]
    ]
    outside = {whose[row["account_id"]][1] for row in moves} - set(work.family.customers)
    return found + [f"{each} is nobody's member" for each in outside]


def _lapsed(kept: Kept) -> list[str]:
    """Nothing is left of what is past its expiry; and only that has lapsed."""
    found = [
        f"lot {row['lot_id']} is past its expiry with {row['remaining']} points"
        for row in kept.lots
        if row["expires_at"] is not None and row["remaining"]
    ]
    lots = {row["lot_id"]: row for row in kept.lots}
    by_id = {row["entry_id"]: row for row in kept.entries}
    moved: Counter[Any] = Counter()
    for row in kept.allocations:
        entry, lot = by_id.get(row["entry_id"]), lots[row["lot_id"]]
        if entry is None or entry["kind"] != EXPIRE:
            continue
        moved[row["entry_id"]] += row["points"]
        if lot["expires_at"] is None or lot["expires_at"] > entry["booked_at"]:
            found.append(f"lot {row['lot_id']} lapsed before its expiry")
    return found + [
        f"entry {row['entry_id']} let {-row['points']} points lapse, its lots {-moved[row['entry_id']]}"
        for row in kept.entries
        if row["kind"] == EXPIRE and row["points"] != moved[row["entry_id"]]
    ]


# ---------------------------------------------------------------------- who is in which


def _inside(happened: Sequence[Deed], kept: Kept) -> list[str]:
    """Each change of a household was told once, in one line from its beginning to what it is now."""
    told: dict[str, list[Letter]] = defaultdict(list)
    for letter in kept.sent:
        if letter.subject.startswith(_SUBJECT):
            told[letter.headers["ce-subject"]].append(letter)
    now: dict[str, set[str]] = defaultdict(set)
    for row in kept.household_members:
        now[str(row["household_id"])].add(str(row["customer_id"]))
    found: list[str] = []
    joined: Counter[Place] = Counter()
    for row in kept.households:
        household_id = str(row["household_id"])
        found += _line(household_id, row, told.pop(household_id, []), now.pop(household_id, set()), joined)
    found += [f"events of a household {each}, which never was" for each in told]
    found += [f"members of a household {each}, which never was" for each in now]
    asked = Counter(
        (deed.id, deed.who or deed.request.customer_id) for deed in happened if deed.rpc in _JOINING
    )
    found += [f"{each[1]} came into {each[0]} and it was not told" for each in asked - joined]
    found += [f"{each[1]} came into {each[0]} more often than asked" for each in joined - asked]
    made = Counter(deed.id for deed in happened if deed.rpc in _CREATING)
    there = Counter(str(row["household_id"]) for row in kept.households)
    found += [f"household {each} is lost" for each in made - there]
    found += [f"household {each} was never asked for" for each in there - made]
    again = Counter((row["program_id"], row["customer_id"]) for row in kept.household_members)
    return found + [f"{each[1]} is in {times} households" for each, times in again.items() if times > 1]


def _line(
    household_id: str, row: Row, letters: Iterable[Letter], now: set[str], joined: Counter[Place]
) -> list[str]:
    """What is wrong about one household; counts in `joined` who came into it."""
    inside: set[str] = set()
    found, versions, closed = [], [], False
    for letter in sorted(letters, key=lambda each: int(each.headers["aggregateversion"])):
        kind = letter.subject.removeprefix(_SUBJECT)
        event = read(letter, _KINDS[kind])
        message, after = event.message, set(event.message.household.customer_ids)
        versions.append(event.version)
        closed = kind == "closed"
        before, inside = inside, after
        match kind:
            case "created":
                right = not before and len(after) == 1
            case "joined":
                joined[household_id, message.customer_id] += 1
                right = message.customer_id not in before and after == before | {message.customer_id}
            case "left":
                right = message.customer_id in before and after == before - {message.customer_id}
            case _:
                right = not before and not after
        if not right:
            found.append(f"household {household_id} was {kind} by {event.version} from {before} to {after}")
    if versions != list(range(1, row["version"] + 1)):
        found.append(f"household {household_id} at {row['version']} told of {versions}")
    if inside != now or closed != (row["closed_at"] is not None):
        found.append(f"household {household_id} has {now}, told was {inside}")
    return found
