"""What must hold of points once it is quiet: a plain model of what was told and asked, against all that is kept."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from libs.caller import Caller, acting_as
from libs.envelope import Letter, read
from regulars.customers.v1 import orders_pb2 as orders
from regulars.loyalty.v1 import events_pb2 as events
from services.loyalty.ledger import checks as ledger_checks
from services.loyalty.rewards import checks as reward_checks
from tests.chaos.points import DOUBLED, SIGN_UP_POINTS, TIERS, VISIT_POINTS, Club, Deed, Points
from tests.chaos.purchases import Purchases, Story, total
from tests.chaos.purchases_checker import database_of
from tests.flows.looking import Row, rows
from tests.loyalty import members
from tests.platform import Stack

# TransactionType, HoldState, RedemptionState
EARN, REDEEM, ADJUST, REVERSE, TRANSFER = 1, 2, 4, 5, 6
OPEN, CAPTURED, RELEASED, LAPSED = 1, 2, 3, 4
ISSUED, USED, UNDONE = 1, 2, 3
_TABLES = (
    "accounts", "entries", "lots", "holds", "redemptions", "rewards", "memberships", "standings", "tier_changes",
    "idempotency_keys",
)  # fmt: skip
_POINTS = {
    "customers.points.earned": events.PointsEarned,
    "customers.points.redeemed": events.PointsRedeemed,
    "customers.points.adjusted": events.PointsAdjusted,
    "customers.points.reversed": events.PointsReversed,
    "customers.points.transferred": events.PointsTransferred,
}
Line = tuple[
    int, str, str, int, str
]  # what is compared of an entry: kind, program, customer, points, what it is about


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


async def kept_of(stack: Stack, tenant_id: UUID, sent: list[Letter]) -> Kept:
    """All of it, read as the administrator."""
    found = {
        table: await rows(stack, f"select * from loyalty.{table} where tenant_id = %s", tenant_id)
        for table in _TABLES
    }
    return Kept(found, sent)


def faults(work: Points, purchases: Purchases, held: Mapping[str, orders.Order], kept: Kept) -> list[str]:
    """Everything that is not as it was told and asked, or not the same in two places."""
    happened, found = _happened(work.deeds, kept)
    told = [
        (held[key].id, held[key].customer_id, story)
        for key, story in purchases.stories.items()
        if key in held
    ]
    wanted = _wanted(work.club, happened, kept)
    found += _entries(wanted, kept)
    found += _orders(work.club, told, kept)
    found += _balances(work.club, wanted, told, kept)
    found += _recounted(kept)
    found += _holds(happened, kept)
    found += _redemptions(happened, kept)
    found += _told(kept)
    return found


async def own_faults(stack: Stack, club: Club) -> list[str]:
    """What the product's own proofs find."""
    itself = Caller(tenant_id=club.shop.tenant.id, subject="loyalty", kind="service", service="loyalty")
    found = []
    async with database_of(stack, "loyalty") as database:
        with acting_as(itself):
            async with database.read() as tx:
                for each in (ledger_checks, reward_checks):
                    found += [
                        f"{row.what} {row.id}: {row.facts}"
                        for row in await each.faults(tx, UUID(club.shop.id))
                    ]
    return found


async def shown_faults(work: Points, kept: Kept) -> list[str]:
    """Balances that members are shown, and are not what is kept."""
    found = []
    now = {(str(row["program_id"]), str(row["customer_id"])): row for row in kept.accounts}
    for customer_id in work.customers:
        for program_id in (work.club.first, work.club.second):
            shown = await members.balance(work.club.shop, customer_id, program_id=program_id)
            row = now[program_id, customer_id]
            if (shown.balance, shown.pending) != (row["balance"], 0) or shown.held > row["held"]:
                found.append(f"{customer_id} is shown {shown}")
    return found


# ---------------------------------------------------------------------- the model


def worth(club: Club, program_id: str, order: orders.Order) -> int:
    """What an order earns: a point a dollar in the first program, doubled for a category; one for 0.50 in the other."""
    minor = total(order)
    if program_id == club.second:
        return (minor + 25) // 50
    doubled = sum(
        each.quantity * each.unit_price.amount_minor for each in order.items if each.category == DOUBLED
    )
    points = minor // 100
    return points + points * doubled // minor


def left(club: Club, program_id: str, story: Story) -> int:
    """What of it is left after its returns, rounded up."""
    minor = total(story.last)
    if not story.counts or story.refunded >= minor:
        return 0
    return -(-worth(club, program_id, story.last) * (minor - story.refunded) // minor)


def _happened(deeds: Sequence[Deed], kept: Kept) -> tuple[list[Deed], list[str]]:
    """The deeds that were done, answered or not, each with the id of what came of it; and doubted ones are few."""
    found = []
    claims: dict[str, list[str]] = defaultdict(list)
    for row in kept.idempotency_keys:
        claims[row["request_id"]].append(str(row["resource_id"]))
    happened = []
    for deed in deeds:
        if deed.rpc == "RecordActivities":
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


def _wanted(club: Club, happened: Sequence[Deed], kept: Kept) -> Counter[Line]:
    """The entries that there must be besides those of orders."""
    spent = {str(row["redemption_id"]): str(row["entry_id"]) for row in kept.redemptions}
    holds = {str(row["hold_id"]): row["points"] for row in kept.holds}
    costs = {each.id: each.cost_points for each in club.rewards}
    found: Counter[Line] = Counter()
    for row in kept.memberships:
        found[EARN, club.first, str(row["customer_id"]), SIGN_UP_POINTS, "sign_up"] += 1
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
            case "RedeemReward":
                cost = costs[asked.reward_id]
                found[REDEEM, club.first, asked.customer_id, -cost, spent.get(deed.id, "nothing")] += 1
            case "CancelRedemption":
                cost = costs[about.reward_id]
                found[REVERSE, club.first, about.customer_id, cost, spent.get(asked_of(deed), "nothing")] += 1
            case "RecordActivities":
                (item,) = asked.items
                source = f"activity:{item.activity.id}"
                found[EARN, club.first, item.customer_id, VISIT_POINTS, source] += 1
    return found


def asked_of(deed: Deed) -> str:
    """Id of the deed that it goes on with."""
    return deed.about.id if deed.about else ""


# ---------------------------------------------------------------------- against what is kept


def _entries(wanted: Counter[Line], kept: Kept) -> list[str]:
    """The ledger has these entries once, and no others but those of orders."""
    whose = _owners(kept)
    seen: Counter[Line] = Counter()
    for row in kept.entries:
        if row["order_id"] is not None:
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


def _orders(club: Club, told: Sequence[tuple[str, str, Story]], kept: Kept) -> list[str]:
    """Each order gave what it is worth, less what was returned; a steady one gave it at once, rule by rule."""
    whose, found = _owners(kept), []
    given: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in kept.entries:
        if row["order_id"] is not None:
            program_id, customer_id = whose[row["account_id"]]
            given[program_id, str(row["order_id"])].append(row | {"customer_id": customer_id})
    for order_id, customer_id, story in told:
        for program_id in (club.first, club.second):
            mine = given.pop((program_id, order_id), [])
            if any(row["customer_id"] != customer_id for row in mine):
                found.append(f"order {story.external_id} gave points to somebody else")
            net = sum(row["points"] - row["shortfall"] for row in mine)
            if net != left(club, program_id, story):
                found.append(
                    f"order {story.external_id} earned {net}, it is worth {left(club, program_id, story)}"
                )
            earned = [row for row in mine if row["kind"] == EARN]
            if len(earned) > (1 if story.steady else len(story.revisions)):
                found.append(f"order {story.external_id} earned {len(earned)} times")
            if story.steady and earned:
                by_rule = sorted(reason["points"] for row in earned for reason in row["reasons"])
                if by_rule != sorted(_by_rule(club, program_id, story.last)):
                    found.append(f"order {story.external_id} earned {by_rule} by its rules")
    return found + [f"points of an order {order_id}, which never was" for _, order_id in given]


def _by_rule(club: Club, program_id: str, order: orders.Order) -> list[int]:
    whole = worth(club, program_id, order)
    if program_id == club.second:
        return [each for each in (whole,) if each]
    plain = total(order) // 100
    return [each for each in (plain, whole - plain) if each]


def _balances(
    club: Club, wanted: Counter[Line], told: Sequence[tuple[str, str, Story]], kept: Kept
) -> list[str]:
    """Each balance is what the model comes to, but for what returns could not take back."""
    model: Counter[tuple[str, str]] = Counter()
    for (_, program_id, customer_id, points, _), times in wanted.items():
        model[program_id, customer_id] += points * times
    for _, customer_id, story in told:
        for program_id in (club.first, club.second):
            model[program_id, customer_id] += left(club, program_id, story)
    whose = _owners(kept)
    seen = {whose[row["account_id"]]: row["balance"] - row["shortfall"] for row in kept.accounts}
    found = (
        [f"{len(kept.accounts) - len(seen)} accounts are doubled"] if len(seen) < len(kept.accounts) else []
    )
    return found + [
        f"balance of {whom} is {seen.get(whom, 0)}, what happened comes to {model[whom]}"
        for whom in model.keys() | seen.keys()
        if model[whom] != seen.get(whom, 0)
    ]


def _recounted(kept: Kept) -> list[str]:
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


def _holds(happened: Sequence[Deed], kept: Kept) -> list[str]:
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


def _redemptions(happened: Sequence[Deed], kept: Kept) -> list[str]:
    """Each redemption that was asked for is there once, and ended as was asked; stocks were kept."""
    found, seen = [], {str(row["redemption_id"]): row for row in kept.redemptions}
    asked = {deed.id: deed for deed in happened if deed.rpc == "RedeemReward"}
    found += [f"redemption {each} is lost" for each in asked.keys() - seen.keys()]
    found += [f"redemption {each} was never asked for" for each in seen.keys() - asked.keys()]
    ends: dict[str, set[int]] = defaultdict(set)
    for deed in happened:
        if deed.rpc in {"MarkUsed", "CancelRedemption"}:
            ends[asked_of(deed)].add(USED if deed.rpc == "MarkUsed" else UNDONE)
    for each in asked.keys() & seen.keys():
        row = seen[each]
        if {row["state"]} != (ends.get(each) or {ISSUED}):
            found.append(f"redemption {each} is in state {row['state']}, wanted {ends.get(each)}")
    codes = Counter(bytes(row["code_hash"]) for row in kept.redemptions)
    found += [f"a code was given {times} times" for times in codes.values() if times > 1]
    taken = Counter(row["reward_id"] for row in kept.redemptions if row["state"] != UNDONE)
    for row in kept.rewards:
        if row["stock"] is not None and taken[row["reward_id"]] > row["stock"]:
            found.append(
                f"reward {row['reward_id']} was given {taken[row['reward_id']]} times of {row['stock']}"
            )
    return found


def _told(kept: Kept) -> list[str]:
    """Each entry was told once, and each step of a redemption."""
    told: Counter[str] = Counter()
    for letter in kept.sent:
        if letter.subject in _POINTS:
            told[read(letter, _POINTS[letter.subject]).message.transaction_id] += 1
    entries = {str(row["entry_id"]) for row in kept.entries}
    found = [f"entry {each} was not told" for each in entries - told.keys()]
    found += [f"entry {each} was told and is not there" for each in told.keys() - entries]
    found += [f"entry {each} was told {times} times" for each, times in told.items() if times > 1]
    steps = Counter(
        (letter.headers["ce-subject"], letter.subject.rpartition(".")[2])
        for letter in kept.sent
        if letter.subject.startswith("customers.reward.") and not letter.subject.endswith("published")
    )
    wanted: Counter[tuple[str, str]] = Counter()
    for row in kept.redemptions:
        wanted[str(row["redemption_id"]), "redeemed"] += 1
        if row["state"] in {USED, UNDONE}:
            wanted[str(row["redemption_id"]), "used" if row["state"] == USED else "cancelled"] += 1
    found += [f"{verb} of redemption {id_} was not told" for id_, verb in wanted - steps]
    return found + [f"{verb} of redemption {id_} was told too often" for id_, verb in steps - wanted]


def _owners(kept: Kept) -> dict[UUID, tuple[str, str]]:
    """Program and customer of each account."""
    return {row["account_id"]: (str(row["program_id"]), str(row["customer_id"])) for row in kept.accounts}


# ---------------------------------------------------------------------- tiers


def tier_faults(
    club: Club,
    purchases: Purchases,
    held: Mapping[str, orders.Order],
    kept: Kept,
    *,
    recalculated: bool,
) -> list[str]:
    """Tiers that are not what was bought: exactly once all were recalculated; before, nobody is too low.

    A tier that was risen to and whose order came back is kept until its review.
    """
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for key, story in purchases.stories.items():
        if key in held and story.completed:
            now[held[key].customer_id] += total(story.last) - story.refunded if story.counts else 0
            most[held[key].customer_id] += max(map(total, story.revisions))
    names = [name for name, _ in TIERS]
    ranks = {
        row["account_id"]: names.index(row["tier"])
        for row in kept.standings
        if row["program_id"] == UUID(club.first)
    }
    found = []
    for row in kept.accounts:
        if row["program_id"] != UUID(club.first):
            continue
        customer_id, rank = str(row["customer_id"]), ranks.get(row["account_id"], 0)
        lowest = _rank(now[customer_id])
        highest = lowest if recalculated else _rank(most[customer_id])
        if not lowest <= rank <= highest:
            found.append(f"tier of {customer_id} is {rank}, bought was for {lowest} to {highest}")
    return found + _climbs(kept, names, ranks)


def _rank(minor: int) -> int:
    return max(rank for rank, (_, wanted) in enumerate(TIERS) if minor >= wanted)


def _climbs(kept: Kept, names: Sequence[str], ranks: Mapping[UUID, int]) -> list[str]:
    """Each change of a tier begins where the one before ended, the last is what holds, and each was told once."""
    found, changes = [], defaultdict(list)
    for row in sorted(kept.tier_changes, key=lambda row: (row["changed_at"], row["change_id"])):
        changes[row["account_id"]].append(row)
    for account_id, steps in changes.items():
        path = [names[0], *(row["to_tier"] for row in steps)]
        if [row["from_tier"] for row in steps] != path[:-1] or path[-1] != names[ranks[account_id]]:
            found.append(f"tiers of account {account_id} went {path}, it has {names[ranks[account_id]]}")
    told = Counter(
        letter.headers["ce-subject"]
        for letter in kept.sent
        if letter.subject in {"customers.tier.upgraded", "customers.tier.downgraded"}
    )
    return found + [
        f"{told[str(each)]} of {len(changes[each])} tiers of {each} were told"
        for each in changes.keys() | {UUID(each) for each in told}
        if told[str(each)] != len(changes[each])
    ]
