"""Folding: what was booked long enough ago is added up once; a report adds what came since the mark.

A report first reads the mark and what is folded in one statement, then what came since that mark: so nothing is
missing or twice, whatever is folded meanwhile.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import TextClause, text

from libs.db import Tx
from services.loyalty.ledger import writing

EVER = datetime(1, 1, 1, tzinfo=UTC)

_NOTE = text("""
    insert into fold_marks (tenant_id, subject, folded_until) values (:tenant, :subject, :ever) on conflict do nothing
""")
_LOCK = text(
    "select folded_until from fold_marks where tenant_id = :tenant and subject = :subject for update"
)
_MOVE = text("update fold_marks set folded_until = :until where tenant_id = :tenant and subject = :subject")


async def fold(
    tx: Tx, subject: str, settled: datetime, at_once: int, cut: TextClause, step: TextClause
) -> bool:
    """Folds about `at_once` things that happened before `settled`; True if there are more.

    `cut` finds the instant of the `:some`th thing since the mark, `step` folds from `:since` to before `:until`.
    """
    mine: dict[str, Any] = {"tenant": tx.tenant_id, "subject": subject}
    await tx.execute(_NOTE, {**mine, "ever": EVER})
    since: datetime = await tx.scalar(_LOCK, mine)
    if since >= settled:
        return False
    await tx.execute(writing.BY_KEY)
    where: dict[str, Any] = {"tenant": tx.tenant_id, "since": since}
    found: datetime | None = await tx.scalar(cut, {**where, "settled": settled, "some": at_once})
    if found == since:
        found += timedelta(microseconds=1)  # all of one instant
    until = found or settled
    await tx.execute(step, {**where, "until": until})
    await tx.execute(_MOVE, {**mine, "until": until})
    return found is not None
