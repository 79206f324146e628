"""What is done again and again for reports: what happened is folded into days and months."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, bindparam, text

from libs.db import Tx
from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty import due
from services.loyalty.ledger import writing
from services.loyalty.reports import cohorts, revenue, rewards

ENTRIES_AT_ONCE = 2_000  # a statement may take five seconds, also on a busy machine with cold tables
# No transaction is open as long as this: what was booked before it has been committed, or never will be.
SETTLED_AFTER = timedelta(minutes=5)

_LOCK = text("""
    insert into report_marks (tenant_id, folded_until) values (:tenant, '-infinity') on conflict do nothing
""")
_MARK = text(
    "select folded_until = '-infinity' as new, cast(nullif(folded_until, '-infinity') as timestamptz) as since"
    " from report_marks where tenant_id = :tenant for update"
)
_UNTIL = text("""
    select e.booked_at from entries e
    where e.tenant_id = :tenant and (cast(:since as timestamptz) is null or e.booked_at >= :since)
      and e.booked_at < :settled
    order by e.booked_at offset :some limit 1
""").bindparams(bindparam("since", type_=DateTime(timezone=True)))
_FOLD = text("""
    insert into report_days as d (tenant_id, program_id, day, tier, business_id, issued, redeemed, expired, reclaimed,
                                  removed, change)
    select :tenant, a.program_id, cast(e.booked_at at time zone b.time_zone as date), coalesce(s.tier, ''),
           e.business_id,
           coalesce(sum(e.points) filter (where e.kind = 1 or (e.kind = 4 and e.points > 0)), 0),
           coalesce(-sum(e.points) filter (where e.kind = 2
                    or (e.kind = 5 and e.reverses_id is not null and e.points > 0)), 0),
           coalesce(-sum(e.points) filter (where e.kind = 3), 0),
           coalesce(-sum(e.points) filter (where e.kind = 5 and e.reverses_id is null), 0),
           coalesce(-sum(e.points) filter (where e.points < 0
                    and (e.kind = 4 or (e.kind = 5 and e.reverses_id is not null))), 0),
           sum(e.balance_points + e.pending_points)
    from entries e
    join accounts a on a.tenant_id = e.tenant_id and a.account_id = e.account_id
    join businesses b on b.tenant_id = e.tenant_id and b.business_id = e.business_id
    left join standings s on s.tenant_id = e.tenant_id and s.account_id = e.account_id
    where e.tenant_id = :tenant and (cast(:since as timestamptz) is null or e.booked_at >= :since)
      and e.booked_at < :until
    group by 2, 3, 4, 5
    on conflict on constraint report_days_pkey do update
    set issued = d.issued + excluded.issued, redeemed = d.redeemed + excluded.redeemed,
        expired = d.expired + excluded.expired, reclaimed = d.reclaimed + excluded.reclaimed,
        removed = d.removed + excluded.removed, change = d.change + excluded.change
""").bindparams(bindparam("since", type_=DateTime(timezone=True)))
_MOVE = text("update report_marks set folded_until = :until where tenant_id = :tenant")


async def fold(tx: Tx, settled: datetime, at_once: int) -> bool:
    """Folds about `at_once` entries that were booked before `settled` into days; True if there are more."""
    where: dict[str, Any] = {"tenant": tx.tenant_id}
    await tx.execute(_LOCK, where)
    since = (await tx.execute(_MARK, where)).one().since
    if since is not None and since >= settled:
        return False
    await tx.execute(writing.BY_KEY)
    where |= {"since": since, "settled": settled}
    cut: datetime | None = await tx.scalar(_UNTIL, {**where, "some": at_once})
    if cut is not None and cut == since:
        cut += timedelta(microseconds=1)  # all of one instant
    until = cut or settled
    await tx.execute(_FOLD, {"tenant": tx.tenant_id, "since": since, "until": until})
    await tx.execute(_MOVE, {"tenant": tx.tenant_id, "until": until})
    return cut is not None


FOLDS = (fold, rewards.fold, cohorts.fold, revenue.fold)


async def fold_days(rt: Any) -> None:
    """Folds what every tenant's members earned, spent and bought."""
    await due.for_each(rt, await due.tenants(rt, "reports", SETTLED_AFTER), _fold_days)


async def _fold_days(runtime: Runtime) -> None:
    for each in FOLDS:
        more = True
        while more:
            async with runtime.db.tx() as tx:
                more = await each(tx, tx.now - SETTLED_AFTER, ENTRIES_AT_ONCE)


PERIODIC = [Periodic("fold days", timedelta(minutes=5), fold_days)]
