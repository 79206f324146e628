"""Whose profile is complete, and whose birthday it is: given what rules and tiers say, once, and once in each year."""

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from libs.db import Tx
from services.loyalty.ledger import bonuses
from services.loyalty.ledger.anniversaries import DAYS, due_days, zone_of
from services.loyalty.ledger.bonuses import Occasion
from services.loyalty.merges import queries as merges
from services.loyalty.people import queries as people
from services.loyalty.programs import queries as programs
from services.loyalty.programs import rules
from services.loyalty.programs.queries import Program
from services.loyalty.tiers import queries as tiers


async def complete_profiles(tx: Tx, customer_ids: Iterable[UUID]) -> None:
    """Gives those of these people whose profile is complete what is due, at every business. Emits PointsEarned."""
    now = await merges.survivors(tx, customer_ids)
    due = [
        Occasion(
            business_id=business_id,
            customer_id=customer_id,
            trigger=rules.PROFILE_COMPLETED,
            key="profile_completed",
            at=tx.now,
        )
        for business_id, customer_id in sorted(await people.complete(tx, set(now.values())))
    ]
    if due:
        await bonuses.work_in_occasions(tx, due)


async def giving(tx: Tx) -> list[Program]:
    """The programs of the tenant that give something for a birthday, by a rule or by a tier."""
    return [
        program
        for program in await programs.all_of_tenant(tx)
        if any(
            rule.terms.get("trigger") == rules.BIRTHDAY
            for rule in (await programs.rule_book(tx, program.program_id)).now
        )
        or any(tier.birthday_points for tier in (await tiers.ladder(tx, program.program_id)).tiers)
    ]


async def celebrate(tx: Tx, program: Program, after: UUID, limit: int) -> UUID | None:
    """Looks at up to `limit` people after one, and gives what is due; the last of them, or None if there was none.

    A birthday begins when the day does where the member lives, and counts in its year, also if the birth date is
    changed later. Emits PointsEarned.
    """
    first = tx.now.astimezone(ZoneInfo("UTC")).date() + timedelta(
        days=1
    )  # east of Greenwich it may be tomorrow
    days = due_days(program, [first - timedelta(days=n) for n in range(DAYS + 2)])
    rows = await people.birthdays(tx, program.business_id, program.program_id, days, after, limit)
    due = []
    for row in rows:
        if row.joined_at is None:
            continue
        zone = zone_of(row.time_zone) or program.zone
        here = tx.now.astimezone(zone).date()
        joined = row.joined_at.astimezone(zone).date()
        if here - timedelta(days=DAYS) < row.day <= here and joined <= row.day:
            due.append(
                Occasion(
                    business_id=program.business_id,
                    customer_id=row.customer_id,
                    trigger=rules.BIRTHDAY,
                    key=f"birthday:{row.day.year}",
                    at=datetime.combine(row.day, time(12), program.zone),
                )
            )
    if due:
        await bonuses.work_in_occasions(tx, due)
    last: UUID | None = rows[-1].customer_id if rows else None
    return last
