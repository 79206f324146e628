"""What must hold of points once it is quiet: a plain model of what was told and asked, against all that is kept."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from regulars.customers.v1 import orders_pb2 as orders
from tests.chaos import ledger_checker
from tests.chaos.deeds import Deed
from tests.chaos.ledger_checker import EARN, REDEEM, REVERSE, Kept, Line, owners
from tests.chaos.points import DOUBLED, SIGN_UP_POINTS, TIERS, VISIT_POINTS, Club, Points
from tests.chaos.purchases import CANCELLED, Purchases, Story, total
from tests.chaos.purchases_checker import ORDERS
from tests.chaos.settling import HEARD
from tests.flows.looking import Row
from tests.loyalty import members

ISSUED, USED, UNDONE = 1, 2, 3  # RedemptionState
TABLES = (
    *ledger_checker.TABLES, "redemptions", "rewards", "memberships", "standings", "tier_changes",
)  # fmt: skip


def faults(work: Points, purchases: Purchases, held: Mapping[str, orders.Order], kept: Kept) -> list[str]:
    """Everything that is not as it was told and asked, or not the same in two places."""
    happened, found = ledger_checker.happened_of(work.deeds, kept)
    told = [
        (held[key].id, held[key].customer_id, story)
        for key, story in purchases.stories.items()
        if key in held
    ]
    wanted = _wanted(work.club, happened, kept)
    found += ledger_checker.entries(wanted, kept, besides=_is_of_an_order)
    found += _orders(work.club, told, kept)
    found += _spent_on_orders(happened, told, kept)
    found += _balances(work.club, wanted, told, kept)
    found += ledger_checker.recounted(kept)
    found += ledger_checker.holds(happened, kept)
    found += ledger_checker.told(kept)
    found += _redemptions(happened, kept)
    found += _told(kept)
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


def _wanted(club: Club, happened: Sequence[Deed], kept: Kept) -> Counter[Line]:
    """The entries that there must be besides those of orders."""
    spent = {str(row["redemption_id"]): str(row["entry_id"]) for row in kept.redemptions}
    costs = {each.id: each.cost_points for each in club.rewards}
    found = ledger_checker.lines(happened, kept)
    for row in kept.memberships:
        found[EARN, club.first, str(row["customer_id"]), SIGN_UP_POINTS, "sign_up"] += 1
    for deed in happened:
        asked: Any = deed.request
        about: Any = deed.about.request if deed.about else None
        match deed.rpc:
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


def _orders(club: Club, told: Sequence[tuple[str, str, Story]], kept: Kept) -> list[str]:
    """Each order gave what it is worth, less what was returned; a steady one gave it at once, rule by rule."""
    whose, found = owners(kept), []
    given: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in kept.entries:
        if _is_of_an_order(row) and not row["reverses_id"]:
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


def _is_of_an_order(row: Row) -> bool:
    """What happened because of an order, and not because somebody named it."""
    return row["order_id"] is not None and row["kind"] != REDEEM


def _spent_on_orders(
    happened: Sequence[Deed], told: Sequence[tuple[str, str, Story]], kept: Kept
) -> list[str]:
    """What was spent on an order came back as far as the order did, if loyalty heard of it after that.

    What came back before stays where it is, even if less was returned in the end.
    """
    stories = {order_id: story for order_id, _, story in told}
    last: dict[str, datetime] = {}
    for letter in kept.sent:
        if letter.subject.startswith(ORDERS) and letter.subject in HEARD["loyalty"]:
            order_id, at = letter.headers["ce-subject"], datetime.fromisoformat(letter.headers["ce-time"])
            last[order_id] = max(at, last.get(order_id, at))
    back: Counter[str] = Counter()
    for row in kept.entries:
        if _is_of_an_order(row) and row["reverses_id"]:
            back[str(row["reverses_id"])] += row["points"]
    found = []
    for deed in happened:
        if deed.rpc != "RedeemPoints" or not deed.request.order_id:
            continue
        points, got = deed.request.points, back.pop(deed.id, 0)
        story = stories.get(deed.request.order_id)
        if story is None:
            found.append(f"{points} were spent on order {deed.request.order_id}, which is lost")
            continue
        due = most = _due(story, points, story.refunded)
        if story.steady:
            most = _due(
                story, points, max(story.refunded, *(each.refunded.amount_minor for each in story.revisions))
            )
        elif story.completed:
            most = points
        # On what is known as cancelled nothing is spent: whatever was came before.
        sure = story.last.status == CANCELLED or (
            deed.answered and last[deed.request.order_id].timestamp() > deed.answered
        )
        if not (due if sure else 0) <= got <= most:
            found.append(
                f"of {points} spent on order {story.external_id} {got} came back, not {due} to {most}"
            )
    return found + [
        f"{points} came back of {each}, which was spent on no order" for each, points in back.items()
    ]


def _due(story: Story, points: int, refunded: int) -> int:
    """What comes back of points that were spent on an order of which so much was returned, rounded down."""
    minor = total(story.last)
    if story.last.status == CANCELLED or (story.completed and refunded >= minor):
        return points
    return points * refunded // minor if story.completed else 0


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
    whose = owners(kept)
    for row in kept.entries:
        if _is_of_an_order(row) and row["reverses_id"]:  # `_spent_on_orders` says whether so much should
            model[whose[row["account_id"]]] += row["points"]
    seen = {whose[row["account_id"]]: row["balance"] - row["shortfall"] for row in kept.accounts}
    found = (
        [f"{len(kept.accounts) - len(seen)} accounts are doubled"] if len(seen) < len(kept.accounts) else []
    )
    return found + [
        f"balance of {whom} is {seen.get(whom, 0)}, what happened comes to {model[whom]}"
        for whom in model.keys() | seen.keys()
        if model[whom] != seen.get(whom, 0)
    ]


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
    """Each step of a redemption was told once."""
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
    found = [f"{verb} of redemption {id_} was not told" for id_, verb in wanted - steps]
    return found + [f"{verb} of redemption {id_} was told too often" for id_, verb in steps - wanted]


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
