"""Asks the customers service what it tells of people; before any transaction."""

import logging
from collections.abc import Iterable, Sequence
from uuid import UUID

from libs.problems import Problem
from libs.run.service import Runtime
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from services.loyalty.people.actions import Facts

log = logging.getLogger(__name__)

AT_ONCE = 500
SECONDS = 2.0


async def facts_of(runtime: Runtime, customer_ids: Iterable[UUID]) -> list[Facts] | None:
    """What customers tells of people, those it does not know left out; None if it cannot say: points do not wait."""
    ids = sorted(set(customer_ids))
    found: list[Facts] = []
    stub = runtime.clients.stub(CustomersServiceStub, "customers")
    try:
        for at in range(0, len(ids), AT_ONCE):
            request = pb.BatchGetCustomerFactsRequest(ids=map(str, ids[at : at + AT_ONCE]))
            answer = await stub.BatchGetCustomerFacts(request, timeout=SECONDS)
            found += _facts(answer.facts)
    except Problem as problem:
        log.warning("people are asked for later", extra={"reason": problem.reason})
        return None
    return found


def _facts(told: Sequence[pb.CustomerFacts]) -> list[Facts]:
    return [
        Facts(
            customer_id=UUID(each.customer_id),
            version=each.version,
            birth_month=each.birth_month or None,
            birth_day=each.birth_day or None,
            time_zone=each.time_zone,
            profile_complete=each.profile_complete,
        )
        for each in told
    ]
