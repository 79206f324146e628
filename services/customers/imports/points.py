"""Imports of points: rows go to loyalty a batch at a time, outside of any transaction, and are taken back there.

Loyalty knows a row by import and number: what was told once may be told again.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select, update

from libs import clock, outages
from libs.crypto import live_versions
from libs.db import Tx
from libs.instants import stamp
from libs.jobs import Job, JobCancelled
from libs.run.service import Runtime
from regulars.loyalty.v1 import balances_pb2 as pb
from regulars.loyalty.v1.balances_pb2_grpc import BalancesServiceStub
from services.customers.imports import rules, targets, writing
from services.customers.imports.balances import Brought
from services.customers.imports.rows import Parsed, RowError
from services.customers.imports.rules import Counts, State
from services.customers.imports.tables import imports
from services.customers.imports.undoing import SPENT, Left, Undoing
from services.customers.imports.work import Chunk, Work
from services.customers.orders import buyers

BATCH = 500  # rows of one call
SECONDS = 30.0  # for one call
# Loyalty hears of customers a moment after they were made, and after many were imported a while. So long nobody of
# those whom it does not know may turn up before their rows are refused.
PATIENCE = timedelta(seconds=60)
FIRST_PAUSE, LAST_PAUSE = 0.1, 2.0  # seconds between the times that a row is told

_NOBODY = "CUSTOMER_NOT_FOUND", "must be a customer of the business; import customers before their points"
_SEVERAL = "CUSTOMER_AMBIGUOUS", "must be of one customer; these are of several"
_UNHEARD = "MEMBER_UNKNOWN", "the loyalty program has not heard of the customer yet; import the row again"
_BEFORE = "BALANCE_KNOWN", "an earlier import of this source has given the member just this"


class Giving(Work):
    """One try of one import of points."""

    def __init__(self, rt: Runtime, job: Job, patience: timedelta = PATIENCE) -> None:
        super().__init__(rt, job)
        self._loyalty = rt.clients.stub(BalancesServiceStub, "loyalty")
        self._patience = patience
        self._until = clock.now() + patience
        self._answers: list[pb.ImportBalanceResult] = []
        self._lost: list[RowError] = []

    async def _write(self, chunk: Chunk) -> None:
        await self._go_on()
        whose, self._lost = await self._whose(chunk.parsed)
        self._answers = []
        for i in range(0, len(whose), BATCH):
            self._answers += await self._told(whose[i : i + BATCH])
        await super()._write(chunk)

    async def _go_on(self) -> None:
        """Raises JobCancelled, LeaseLost if this try is over: then loyalty is told nothing more."""
        async with self.rt.db.tx() as tx:
            mine = imports.c.tenant_id == tx.tenant_id, imports.c.import_id == self.import_id
            if await tx.scalar(select(imports.c.state).where(*mine)) != State.RUNNING:
                raise JobCancelled
            await self.job.save(tx, self.job.checkpoint or {})

    async def _refresh(self, rows: int) -> None:
        """No table of this service grows."""

    async def _whose(self, parsed: Sequence[Parsed]) -> tuple[list[pb.ImportedBalance], list[RowError]]:
        """The rows of members as loyalty takes them, and what is wrong with the others."""
        here, source, match_by = self.business.business_id, self.mine.row.source, self.mine.row.match_by
        rows = [(each.row, each.brought) for each in parsed if each.brought is not None]
        async with self.rt.db.read() as tx:
            live = await live_versions(tx)
            prints = [
                {
                    kind: [self.keys.blind_index(live, kind, value).digest]
                    for kind, value in brought.keys(here, source).items()
                }
                for _, brought in rows
            ]
            held = await writing.holders_of(tx, live, prints)
            ids = {each for found in held for each in found.values()}
            ids |= {brought.customer_id for _, brought in rows if brought.customer_id}
            members = await buyers.members(tx, here, ids, left=False)
        found: list[pb.ImportedBalance] = []
        wrong: list[RowError] = []
        for (row, brought), holders in zip(rows, held, strict=True):
            named = [brought.customer_id] if brought.customer_id else []
            named += [holders[kind] for kind in rules.KEYS[match_by] if kind in holders]
            several = {members.get(each, each) for each in (*named, *holders.values())}
            member = members.get(named[0]) if named else None
            if member is None or len(several) > 1:
                wrong.append(self._error(row, self._key(brought), *(_NOBODY if member is None else _SEVERAL)))
            else:
                found.append(_message(row, brought, member))
        return found, wrong

    async def _told(self, rows: Sequence[pb.ImportedBalance]) -> list[pb.ImportBalanceResult]:
        """What loyalty says of rows; those of members whom it does not know yet are told again for a while."""
        found: list[pb.ImportBalanceResult] = []
        waiting = list(rows)
        for tries in itertools.count(1):
            request = pb.ImportBalancesRequest(
                business_id=str(self.business.business_id),
                import_id=str(self.import_id),
                source=self.mine.row.source,
                balances=waiting,
                validate_only=self.dry is not None,
            )
            answer = await self._loyalty.ImportBalances(request, timeout=SECONDS)
            unheard = {
                each.row
                for each in answer.results
                if each.outcome == pb.IMPORT_BALANCE_OUTCOME_MEMBER_UNKNOWN
            }
            if len(unheard) < len(waiting):
                self._until = clock.now() + self._patience
            if not unheard or self.dry is not None or clock.now() >= self._until:
                return [*found, *answer.results]
            found += [each for each in answer.results if each.row not in unheard]
            waiting = [each for each in waiting if each.row in unheard]
            await asyncio.sleep(outages.delay_seconds(tries, FIRST_PAUSE, LAST_PAUSE))
            await self._go_on()
        raise AssertionError("unreachable")

    async def _write_rows(self, tx: Tx, reading: Any, chunk: Chunk, errors: list[RowError]) -> Counts:
        counts = Counts()
        refused = list(self._lost)
        for each in self._answers:
            match each.outcome:
                case pb.IMPORT_BALANCE_OUTCOME_CREATED:
                    counts.balances_created += 1
                case pb.IMPORT_BALANCE_OUTCOME_KNOWN if self.mine.row.duplicates != rules.CREATE:
                    counts.balances_skipped += 1
                case pb.IMPORT_BALANCE_OUTCOME_KNOWN:
                    refused.append(self._error(each.row, "", *_BEFORE))
                case pb.IMPORT_BALANCE_OUTCOME_MEMBER_UNKNOWN:
                    refused.append(self._error(each.row, "", *_UNHEARD))
                case _:
                    target = f"balance.{each.field}" if each.field else ""
                    refused.append(self._error(each.row, target, each.reason, each.expected))
        counts.rows_refused = len(refused)
        errors += refused
        return counts

    def _key(self, brought: Brought) -> str:
        """The first key that a row has of its customer."""
        given = {
            "customer.id": brought.customer_id,
            "customer.external_id": brought.external_id,
            "customer.email": brought.email,
        }
        return next((target for target, value in given.items() if value), "customer.phone")

    def _error(self, row: int, target: str, reason: str, expected: str) -> RowError:
        column = next(
            (each for each in self.mine.plan.mapping.columns if target and each.target == target), None
        )
        known = targets.of_kind(rules.BALANCES).get(target)
        place = (column.index + 1, column.name) if column else (0, "")
        return RowError(row, *place, known.field if known else target, reason, expected)


def _message(row: int, brought: Brought, member: UUID) -> pb.ImportedBalance:
    return pb.ImportedBalance(
        row=row,
        customer_id=str(member),
        program=brought.program,
        points=brought.points,
        expires_at=stamp(brought.expires_at),
        earned_at=stamp(brought.earned_at),
        lifetime_points=brought.lifetime_points,
        reason=brought.reason,
        reference=brought.reference,
    )


class Taking(Undoing):
    """One try of taking the points of one import back."""

    def __init__(self, rt: Runtime, job: Job) -> None:
        super().__init__(rt, job)
        self._loyalty = rt.clients.stub(BalancesServiceStub, "loyalty")
        self._before = int((job.checkpoint or {}).get("before_row", 0))

    async def _count(self) -> int:
        async with self.rt.db.tx() as tx:
            total = int(await tx.scalar(select(imports.c.balances_created).where(*self.at(tx))))
            await self.job.save(tx, {"before_row": self._before}, done=self.job.done, total=total)
        return self.job.done

    async def _batch(self, done: int) -> int:
        async with self.rt.db.read() as tx:
            mine = (await tx.execute(select(imports).where(*self.at(tx)))).one()
        if mine.state != State.UNDOING:
            raise JobCancelled
        request = pb.UndoBalancesRequest(
            business_id=str(mine.business_id),
            import_id=str(self.import_id),
            before_row=self._before,
            limit=BATCH,
        )
        rows = (await self._loyalty.UndoBalances(request, timeout=SECONDS)).balances
        async with self.rt.db.tx() as tx:
            mine = (await tx.execute(select(imports).where(*self.at(tx)).with_for_update())).one()
            if mine.state != State.UNDOING:
                raise JobCancelled
            if not rows:
                await self.end(tx, mine)
                return 0
            left = list(_left(rows))
            await self.note(tx, left)
            await tx.execute(
                update(imports)
                .where(*self.at(tx))
                .values(conflicts=imports.c.conflicts + len(left), updated_at=tx.now)
            )
            so_far = done + len(rows)  # loyalty may have more rows than were counted when the import stopped
            total = max(so_far, self.job.total or 0)
            await self.job.save(tx, {"before_row": rows[-1].row}, done=so_far, total=total)
        self._before = rows[-1].row
        return len(rows)


def _left(rows: Iterable[pb.UndoneBalance]) -> Iterable[Left]:
    """What was spent already."""
    for each in rows:
        if each.spent_points:
            all_of_it = each.points + each.spent_points + each.expired_points
            why = f"{each.spent_points} of its {all_of_it} points were spent, given away or set aside, and stay so"
            yield Left(each.row, SPENT, customer_id=UUID(each.customer_id), expected=why)
