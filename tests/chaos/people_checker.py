"""What must hold between all services once it is quiet, told fault by fault."""

from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.chaos.people import Person
from tests.chaos.settling import handled_once
from tests.flows.looking import letters, rows
from tests.platform import Stack, TenantOfTest


async def faults(
    stack: Stack, tenant: TenantOfTest, business_id: str, people: Mapping[str, Person]
) -> list[str]:
    """Everything that is not as it was acknowledged, or not the same in two places."""
    found = await _customers(stack, tenant, business_id, people)
    found += await _rows(stack, tenant.id, people)
    found += await _events(stack, tenant.id, people)
    found += await _memberships(stack, tenant.id, business_id, people)
    return found


async def _customers(
    stack: Stack, tenant: TenantOfTest, business_id: str, people: Mapping[str, Person]
) -> list[str]:
    """Each is read by id, and found by e-mail, with exactly what was acknowledged last."""
    stub: Any = tenant.calls(CustomersServiceStub, businesses=[business_id])
    found: list[str] = []
    ids = list(people)
    for first in range(0, len(ids), 1000):
        answer = await stub.BatchGetCustomers(pb.BatchGetCustomersRequest(ids=ids[first : first + 1000]))
        found += [f"customer {each} is lost" for each in answer.missing_ids]
        for customer in answer.customers:
            shown = Person(
                customer.id,
                customer.email,
                customer.first_name,
                pb.CustomerStatus.Name(customer.status).removeprefix("CUSTOMER_STATUS_"),
                int(customer.etag),
            )
            if shown != people[customer.id]:
                found.append(f"customer {customer.id} is at version {shown.version}, or has other content")
    for person in people.values():
        request = pb.LookupCustomerRequest(email=person.email)
        if (await stub.LookupCustomer(request)).id != person.id:
            found.append(f"the e-mail of {person.id} finds somebody else")
    return found


async def _rows(stack: Stack, tenant_id: UUID, people: Mapping[str, Person]) -> list[str]:
    """One customer for each request, one identifier and one data key for each customer, no half of anything."""
    found = []
    for table, what in (
        ("customers", "customer_id"),
        ("memberships", "customer_id"),
        ("customer_identifiers", "customer_id"),
        ("subject_keys", "subject_id"),
    ):
        query = f"select {what} as id from customers.{table} where tenant_id = %s"
        counted = Counter(str(row["id"]) for row in await rows(stack, query, tenant_id))
        found += [f"{table}: {id_} is nobody's" for id_ in counted.keys() - people.keys()]
        found += [f"{table}: nothing of {id_}" for id_ in people.keys() - counted.keys()]
        found += [f"{table}: {id_} {n} times" for id_, n in counted.items() if n > 1]
    asked = sum(person.version for person in people.values())
    query = "select count(*) as n from customers.idempotency_keys where tenant_id = %s"
    kept = (await rows(stack, query, tenant_id))[0]["n"]
    if kept != asked:
        found.append(f"{kept} requests are remembered, {asked} were acknowledged")
    return found


async def _events(stack: Stack, tenant_id: UUID, people: Mapping[str, Person]) -> list[str]:
    """Each version of each customer was told once and handled once."""
    sent = await letters(stack, tenant_id)
    told: dict[tuple[str, int], set[str]] = {}
    for letter in sent:
        if letter.subject.startswith("customers.customer."):
            version = (letter.headers["ce-subject"], int(letter.headers["aggregateversion"]))
            told.setdefault(version, set()).add(letter.headers["ce-id"])
    wanted = {(p.id, version) for p in people.values() for version in range(1, p.version + 1)}
    found = [f"no event of {at}" for at in wanted - told.keys()]
    found += [f"an event of {at}, which never was" for at in told.keys() - wanted]
    found += [f"{len(ids)} events of {at}" for at, ids in told.items() if len(ids) > 1]
    return found + await handled_once(stack, tenant_id, sent)


async def _memberships(
    stack: Stack, tenant_id: UUID, business_id: str, people: Mapping[str, Person]
) -> list[str]:
    """Loyalty has one membership for each customer, in the standing that the last change gave."""
    query = (
        "select customer_id, business_id, blocked, standing_version, present, deleted, joined_at "
        "from loyalty.memberships where tenant_id = %s"
    )
    found, seen = [], set()
    for row in await rows(stack, query, tenant_id):
        id_ = str(row["customer_id"])
        person = people.get(id_)
        if person is None or id_ in seen:
            found.append(f"a membership of {id_} too many")
            continue
        seen.add(id_)
        shown = (str(row["business_id"]), row["blocked"], row["standing_version"], row["present"])
        if shown != (business_id, person.status == "BLOCKED", person.version, True):
            found.append(f"the membership of {id_} is {shown}, the customer at version {person.version}")
        if row["deleted"] or row["joined_at"] is None:
            found.append(f"the membership of {id_} is not whole")
    return found + [f"no membership of {each}" for each in people.keys() - seen]
