"""How purchases fill a stamp card."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID
from zoneinfo import ZoneInfo

from services.loyalty.programs.rules import (
    STAMP_CARD,
    Award,
    Context,
    Purchase,
    Rule,
    chooses_lines,
    is_for,
    matching,
)

MILESTONES = (50, 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A member's card: all stamps ever put on it, how often it was filled, the last milestone told of this round."""

    stamps: int = 0
    filled: int = 0
    told: int = 0
    version: int = 0


@dataclass(frozen=True, slots=True)
class Stamped:
    """A card after a change: how many times it was filled by it, and the milestones (percent) that it passed."""

    card: Card
    filled: int = 0
    milestones: tuple[int, ...] = ()


def stamps_of(rule: Rule, purchase: Purchase) -> int:
    """How many stamps an order is worth: its matching pieces, or one."""
    lines = matching(rule, purchase)
    if not lines:
        return 0 if chooses_lines(rule) or not rule.terms.get("per_order") else 1
    return 1 if rule.terms.get("per_order") else sum(line.quantity for line in lines)


def here(rule: Rule, card: Card) -> int:
    """Stamps on the card that is being filled; one that does not begin again stays full."""
    size = int(rule.terms["stamps"])
    if card.filled and not rule.terms.get("repeats"):
        return size
    return max(card.stamps - card.filled * size, 0)


def stamped(rule: Rule, card: Card, change: int) -> Stamped:
    """The card once an order put that many stamps on it, or took them back. What was filled stays filled."""
    size = int(rule.terms["stamps"])
    most = card.stamps + change
    after = replace(card, stamps=max(most, 0))
    rounds = after.stamps // size if rule.terms.get("repeats") else min(after.stamps // size, 1)
    filled = max(rounds - card.filled, 0)
    if filled:
        after = replace(after, filled=card.filled + filled, told=0)
    percent = here(rule, after) * 100 // size
    done = after.filled and not rule.terms.get("repeats")
    milestones = () if done else tuple(m for m in MILESTONES if after.told < m <= percent)
    if milestones:
        after = replace(after, told=milestones[-1])
    return Stamped(after, filled, milestones)


def award(rule: Rule, number: int) -> Award | None:
    """The points of the card that was filled as number `number`; None if full cards give none."""
    points = int(rule.terms.get("points", 0))
    return Award(rule.rule_id, rule.name, points, f"for full card number {number}") if points else None


def awards_of(rule: Rule, before: Card, after: Card) -> list[Award]:
    """The points of each card that was filled, in their order."""
    given = (award(rule, number) for number in range(before.filled + 1, after.filled + 1))
    return [each for each in given if each]


def would_stamp(
    rules: Iterable[Rule],
    purchase: Purchase,
    context: Context,
    zone: ZoneInfo,
    cards: Mapping[UUID, Card],
) -> list[tuple[Rule, Card, Card]]:
    """The cards (by rule) that an order would put stamps on, before and after it."""
    found = []
    for rule in rules:
        if rule.kind == STAMP_CARD and is_for(rule, purchase, context, zone):
            before = cards.get(rule.rule_id, Card())
            if worth := stamps_of(rule, purchase):
                found.append((rule, before, stamped(rule, before, worth).card))
    return found
