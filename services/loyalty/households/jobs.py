"""What is done again and again for households: what nobody spent after all goes back to whom it came from."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from libs.run.service import Runtime
from libs.timers import Periodic
from services.loyalty import due
from services.loyalty.households import queries
from services.loyalty.ledger import actions as ledger
from services.loyalty.programs import queries as programs

AT_ONCE = 500


async def give_back(rt: Any) -> None:
    """Returns every tenant's pooled points that are neither spent nor set aside: holds lapsed, orders came back."""
    await due.for_each(rt, await due.tenants(rt, "households"), _give_back)


async def _give_back(runtime: Runtime) -> None:
    after: UUID | None = UUID(int=0)
    while after is not None:
        async with runtime.db.read() as tx:
            rows = await queries.having_others_points(tx, after, AT_ONCE)
        for row in rows:
            async with runtime.db.tx() as tx:
                program = programs.program_of(await programs.row(tx, row.program_id))
                await ledger.give_back(tx, program, row.customer_id)
        after = rows[-1].account_id if len(rows) == AT_ONCE else None


PERIODIC = [Periodic("give back what was pooled", timedelta(minutes=1), give_back)]
