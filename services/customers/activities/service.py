"""RPCs about activities."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs import caller as callers
from libs import idempotency
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.instants import instant
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import activities_pb2 as pb
from regulars.customers.v1.activities_pb2_grpc import ActivitiesServiceServicer
from services.customers.activities import actions, queries, wire
from services.customers.activities.months import Months
from services.customers.activities.queries import Person
from services.customers.activities.rules import Written
from services.customers.activities.wire import WrongItem
from services.customers.businesses import queries as businesses
from services.customers.problems import CustomerNotFound

RECORDED, DUPLICATE = pb.ACTIVITY_OUTCOME_RECORDED, pb.ACTIVITY_OUTCOME_DUPLICATE
NOT_FOUND, INVALID = pb.ACTIVITY_OUTCOME_NOT_FOUND, pb.ACTIVITY_OUTCOME_INVALID


class ActivitiesService(ActivitiesServiceServicer):
    """See activities.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt
        self._months = Months(rt.db)

    async def RecordActivities(
        self, request: pb.RecordActivitiesRequest, context: Context
    ) -> pb.RecordActivitiesResponse:
        await self._make_months(item.activity for item in request.items)
        async with self.rt.db.tx() as tx:
            results = await self._record(tx, request.business_id, request.items)
        outcomes = [result.outcome for result in results]
        return pb.RecordActivitiesResponse(
            results=results,
            recorded=outcomes.count(RECORDED),
            duplicates=outcomes.count(DUPLICATE),
            refused=outcomes.count(NOT_FOUND) + outcomes.count(INVALID),
        )

    async def RecordCustomerActivity(
        self, request: pb.RecordCustomerActivityRequest, context: Context
    ) -> pb.Activity:
        await self._make_months([request.activity])
        item = pb.ActivityItem(customer_id=request.customer_id, activity=request.activity)
        item.activity.id = request.activity.id or str(new_id())
        keys, customer_id = self._keys(), UUID(request.customer_id)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                business = await businesses.live(tx, request.business_id)
                activity_id = UUID(item.activity.id)
                done = await idempotency.claim(tx, request, activity_id)
                if not done:
                    try:
                        whom, written = (
                            wire.whom(item, business),
                            wire.written(item.activity, business, tx.now),
                        )
                    except WrongItem as wrong:
                        raise wire.refusal(wrong) from None
                    (person,) = await self._people(tx, business, [whom])
                    if person is None:
                        raise CustomerNotFound
                    await actions.record_activities(tx, keys, business.business_id, [(person, written)])
                    customer_id = person.customer_id
                view = await queries.one(
                    tx, keys, reading, business.business_id, customer_id, done or activity_id
                )
        return wire.activity(view)

    async def _record(
        self, tx: Tx, requested: str, items: Sequence[pb.ActivityItem]
    ) -> list[pb.ActivityResult]:
        """What became of each item."""
        business = await businesses.live(tx, requested)
        results: list[pb.ActivityResult] = []
        right: list[tuple[pb.ActivityResult, tuple[str, str], Written]] = []
        for item in items:
            result = pb.ActivityResult(id=item.activity.id)
            results.append(result)
            try:
                whom, written = wire.whom(item, business), wire.written(item.activity, business, tx.now)
            except WrongItem as wrong:
                result.outcome, result.field, result.description = INVALID, wrong.field, wrong.description
                continue
            result.id = str(written.activity_id)
            right.append((result, whom, written))
        people = await self._people(tx, business, [whom for _, whom, _ in right])
        first: dict[UUID, tuple[pb.ActivityResult, Person, Written]] = {}
        for (result, _, written), person in zip(right, people, strict=True):
            if person is None:
                result.outcome = NOT_FOUND
            else:
                result.outcome = DUPLICATE
                first.setdefault(written.activity_id, (result, person, written))
        given = [(person, written) for _, person, written in first.values()]
        new = await actions.record_activities(tx, self._keys(), business.business_id, given) if given else ()
        for activity_id in new:
            result, person, _ = first[activity_id]
            result.outcome, result.customer_id = RECORDED, str(person.customer_id)
        return results

    async def _people(
        self, tx: Tx, business: Row[Any], whom: Sequence[tuple[str, str]]
    ) -> list[Person | None]:
        """The live customers of the business whom these name, in their order; their memberships are kept."""
        ids = {key: UUID(key[1]) for key in whom if key[0] == "customer_id"}
        ids |= await queries.named(tx, self._keys(), {key for key in whom if key[0] != "customer_id"})
        people = await queries.people(tx, business.business_id, set(ids.values()))
        return [people.get(ids[key]) if key in ids else None for key in whom]

    async def _make_months(self, activities: Iterable[pb.Activity]) -> None:
        await self._months.make(
            instant(each.occurred_at) for each in activities if each.HasField("occurred_at")
        )

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    def _reading(self) -> Reading:
        return self.rt.audit.reading("user.behavior", "user.content")
