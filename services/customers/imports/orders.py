"""Orders of a chunk: recorded as RecordOrders would, with the customer that their row wrote."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from libs import arrays
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.pipeline import Query
from libs.problems import Problem
from regulars.customers.v1 import orders_pb2 as pb
from services.customers.imports import rules
from services.customers.imports.rows import Parsed
from services.customers.imports.rules import Outcome
from services.customers.orders import actions
from services.customers.orders.wire import Buyer, ToldOrder
from services.customers.problems import RevisionReused

_OUTCOMES = {
    pb.RECORD_OUTCOME_CREATED: Outcome.CREATED,
    pb.RECORD_OUTCOME_UPDATED: Outcome.UPDATED,
}
_KNOWN = Query(
    text("""
    select n.source, n.external_id, o.order_id, o.revision
    from unnest(:sources, :ids) as n (source, external_id)
    cross join lateral (
        select o.order_id, o.revision from orders o
        where o.tenant_id = :tenant and o.business_id = :business
          and o.source = n.source and o.external_id = n.external_id limit 1
    ) o
""")
)
_VERSIONS = Query(
    text("""
    select o.order_id, o.version from unnest(:ids) as n (id)
    cross join lateral (
        select o.order_id, o.version from orders o where o.tenant_id = :tenant and o.order_id = n.id limit 1
    ) o
""")
)


@dataclass(slots=True)
class Result:
    """What became of the order of a row, or why it was refused. `guest`: it made its customer."""

    row: int
    outcome: Outcome
    order_id: UUID | None = None
    version: int = 0
    customer_id: UUID | None = None
    guest: bool = False
    before: bytes | None = None
    field: str = ""
    reason: str = ""
    expected: str = ""


async def record(
    tx: Tx,
    keys: TenantKeys,
    business: Row[Any],
    policy: int,
    told: Sequence[tuple[Parsed, UUID | None]],
) -> dict[int, Result]:
    """Records the orders of rows, each with its customer's id if the row wrote one; gives what became of each.

    An order that is known with other content, and whose file says nothing of revisions, is a newer revision under
    the policy UPDATE and stays as it is under SKIP. Raises as `record_orders` does.
    """
    records = [_with_buyer(each, customer_id) for each, customer_id in told]
    if not records:
        return {}
    found = await actions.record_orders(tx, keys, business, records)
    results: dict[int, Result] = {}
    again: list[int] = []
    for at, ((each, _), answer) in enumerate(zip(told, found, strict=True)):
        if isinstance(answer, RevisionReused) and not each.revised and policy != rules.CREATE:
            if policy == rules.UPDATE:
                again.append(at)
            else:
                results[each.row] = Result(each.row, Outcome.SKIPPED)
            continue
        results[each.row] = _result(each.row, answer)
    if again:
        newer = await _newer(tx, business.business_id, [records[at] for at in again])
        for at, answer in zip(again, await actions.record_orders(tx, keys, business, newer), strict=True):
            row = told[at][0].row
            results[row] = _result(row, answer)
    await _add_versions(tx, results)
    return results


def _with_buyer(parsed: Parsed, customer_id: UUID | None) -> ToldOrder:
    assert parsed.order is not None
    return replace(parsed.order, buyer=Buyer(customer_id=customer_id)) if customer_id else parsed.order


def _result(row: int, answer: pb.RecordResult | Problem) -> Result:
    if isinstance(answer, Problem):
        first = answer.violations[0] if answer.violations else None
        return Result(
            row,
            Outcome.REFUSED,
            field=first.field if first else "order",
            reason=first.reason if first else answer.reason,
            expected=first.description if first else answer.message,
        )
    return Result(
        row,
        _OUTCOMES.get(answer.outcome, Outcome.SKIPPED),
        order_id=UUID(answer.order_id) if answer.order_id else None,
        customer_id=UUID(answer.customer_id) if answer.customer_id else None,
        guest=answer.guest_created,
    )


async def _newer(tx: Tx, business_id: UUID, records: Sequence[ToldOrder]) -> list[ToldOrder]:
    """The orders as the next revisions of what is known."""
    (rows,) = await tx.together(
        (
            _KNOWN,
            {
                "tenant": tx.tenant_id,
                "business": business_id,
                "sources": arrays.texts([each.told.source for each in records]),
                "ids": arrays.texts([each.told.external_id for each in records]),
            },
        )
    )
    revision = {(row.source, row.external_id): row.revision for row in rows}
    newer = []
    for each in records:
        revision[each.key] = revision.get(each.key, 0) + 1  # an order may come twice in a chunk
        newer.append(replace(each, told=replace(each.told, revision=revision[each.key])))
    return newer


async def _add_versions(tx: Tx, results: dict[int, Result]) -> None:
    wrote = [each for each in results.values() if each.outcome in (Outcome.CREATED, Outcome.UPDATED)]
    ids = sorted({each.order_id for each in wrote if each.order_id})
    if not ids:
        return
    (rows,) = await tx.together((_VERSIONS, {"tenant": tx.tenant_id, "ids": arrays.uuids(ids)}))
    version = {row.order_id: row.version for row in rows}
    for each in wrote:
        if each.order_id:
            each.version = version[each.order_id]
