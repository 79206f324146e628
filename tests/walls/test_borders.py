"""Whose ids one has makes no difference: for every RPC, another's are like ids that never were.

Each RPC is called with the ids of a business that is not the caller's, by another tenant and by another business of
the same tenant, and again with ids made up. Both must end alike; nothing of the business may be told, and nothing in
it may change. And each must be reached by its own people, or the rest would prove nothing.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID, uuid4

import psycopg
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from psycopg import sql

from libs.contracts import Method
from libs.problems import Code
from regulars.customers.v1.customers_pb2 import Customer, UpsertCustomerRequest
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.contracts.database import administrator, tables
from tests.platform import Stack, TenantOfTest
from tests.walls import requests
from tests.walls.calls import FAULTS, METHODS, Outcome, bearer, call
from tests.walls.world import World, make_world

every_rpc = pytest.mark.parametrize("method", METHODS.values(), ids=list(METHODS))

# An RPC got as far as the thing it is about if it ends like this.
REACHED = {None, Code.FAILED_PRECONDITION, Code.ALREADY_EXISTS, Code.ABORTED}
# What moves by itself while a test runs.
PASSING = {
    "outbox",
    "inbox",
    "parked",
    "dead_letters",
    "idempotency_keys",
    "leases",
    "timers",
    "report_marks",
    # What reports are folded into, a few minutes later.
    "cohort_months",
    "fold_marks",
    "report_days",
    "report_members",
    "revenue_changes",
    "revenue_days",
    "reward_days",
}


@dataclass(frozen=True)
class Attempt:
    """What to put into the ids of a request: for `id` the object, for `business_id` the business ("": none)."""

    target: str
    business: str
    variant: int

    def request(self, method: Method, ids: Mapping[str, str], texts: Mapping[str, str]) -> Message:
        """The request, with the ids of one world or another."""

        def id_of(field: FieldDescriptor) -> str:
            kind = re.sub(r"_?ids?$", "", field.name)
            if kind == "business":
                return ids.get(self.business, self.business)
            return ids.get(kind) or ids[self.target]

        return requests.build(method, id_of, texts, self.variant)


def attempts(method: Method, ids: Mapping[str, str], own_business: str) -> Iterator[Attempt]:
    """Every object in the place of `id`, beside the business that is attacked, the caller's own, and none."""
    named = {field.name for field in method.input.fields if requests.is_id(field)}
    elsewhere = {kind for kind in ids if kind.endswith("_job")} - {f"{method.service_name}_job"}
    targets = (
        [kind for kind in ids if kind not in elsewhere]
        if named - {"customer_id", "business_id"}
        else ["customer"]
    )
    businesses = ["business", own_business] if "business_id" in named else [""]
    if "business_id" in named and not requests.is_needed(method.input.fields_by_name["business_id"]):
        businesses.append("")
    for variant in requests.variants(method):
        for target in targets:
            for business in businesses:
                yield Attempt(target, business, variant)


def beside(id_: str) -> str:
    """An id that never was, and that would be sorted where `id_` is."""
    tail = (1 << 62) - 1
    return str(UUID(int=UUID(id_).int & ~tail | uuid4().int & tail))


def made_up(texts: Mapping[str, str]) -> dict[str, str]:
    """Other texts of the same forms."""
    mark = uuid4().hex
    digits = f"{int(mark[-4:], 16) % 10_000:04}"
    return {
        field: text[:-4] + digits
        if field == "phone"
        else re.sub(r"[0-9a-f]{8,}", lambda m: mark[: len(m[0])], text)
        for field, text in texts.items()
    }


def shape(message: Message) -> object:
    """Which fields hold something, and how many of it; not what."""
    found: dict[str, object] = {}
    for field, value in message.ListFields():
        if isinstance(value, Message):
            found[field.name] = shape(value)
        elif isinstance(value, str | bytes | int | float):
            found[field.name] = True
        else:
            found[field.name] = len(value)
    return found


def alike(outcome: Outcome, ids: Mapping[str, str], texts: Mapping[str, str]) -> tuple[object, ...]:
    """An outcome less the ids and texts that the request named."""
    told = outcome.text
    for name, value in [*ids.items(), *texts.items()]:
        told = told.replace(value, f"«{name}»")
    return outcome.code, outcome.reason, told, tuple(shape(answer) for answer in outcome.answers)


async def assert_walled(
    stack: Stack, method: Method, home: World, token: str, own_business: str, tenant_ids: Mapping[str, str]
) -> None:
    """Tries everything at `home` with a token that is not of it."""
    theirs = {**home.ids, **tenant_ids}
    before = rows(stack, home, whole_tenant=bool(tenant_ids))
    for attempt in attempts(method, theirs, own_business):
        never = {kind: beside(id_) for kind, id_ in theirs.items()}
        others = made_up(home.texts)
        request = attempt.request(method, theirs, home.texts)
        outcome = await call(stack, method, request, bearer(token))
        without = await call(stack, method, attempt.request(method, never, others), bearer(token))
        where = f"{attempt}\n{request}\n{outcome}\n--- with ids made up ---\n{without}"
        assert outcome.code not in FAULTS, where
        assert alike(outcome, theirs, home.texts) == alike(without, never, others), where
        asked = str(request)
        told = {secret for secret in home.secrets() if secret in str(outcome) and secret not in asked}
        assert not told, where
    assert rows(stack, home, whole_tenant=bool(tenant_ids)) == before


def rows(stack: Stack, world: World, *, whole_tenant: bool) -> set[str]:
    """Every row of the world, or of its whole tenant, in every service; not events under way and the like."""
    ids = [] if whole_tenant else list(world.ids.values())
    found: set[str] = set()
    with psycopg.connect(administrator(stack), autocommit=True) as database:
        for name in tables(database, having="tenant_id"):
            if name.partition(".")[2] in PASSING:
                continue
            query = sql.SQL("select to_jsonb(t)::text from {} t where tenant_id = %s")
            those = database.execute(query.format(sql.Identifier(*name.split("."))), [world.tenant.id])
            found |= {
                f"{name} {row[0]}" for row in those if whole_tenant or any(id_ in row[0] for id_ in ids)
            }
    assert any(name.startswith("customers.customers ") for name in found)
    return found


@every_rpc
async def test_another_tenant_finds_nothing(
    stack: Stack, home: World, other_tenant: TenantOfTest, method: Method
) -> None:
    mine = await make_world(other_tenant, points=False, files=False)
    roles = ("admin",) if method.access.platform else ("admin", "platform")
    customer = mine.ids["customer"] if method.access.self_service else None
    token = other_tenant.token(*roles, customer=customer)
    await assert_walled(stack, method, home, token, mine.business, {"tenant": str(home.tenant.id)})


@every_rpc
async def test_another_business_finds_nothing(
    stack: Stack, home: World, next_door: World, method: Method
) -> None:
    token = next_door.token("admin", customer=method.access.self_service)
    await assert_walled(stack, method, home, token, next_door.business, {})


@every_rpc
async def test_its_own_people_reach_it(stack: Stack, tenant: TenantOfTest, method: Method) -> None:
    if method.access.link:
        pytest.skip("a link is all that it asks for; tests/customers/test_exports.py follows one")
    mine = await make_world(tenant, points=method.service_name == "loyalty", files=of_files(method))
    roles = ("admin", "platform")
    token = mine.token(*roles, customer=True) if method.access.self_service else tenant.token(*roles)
    theirs = dict(mine.ids) | {"tenant": str(tenant.id)}
    tried = []
    for attempt in attempts(method, theirs, mine.business):
        request = attempt.request(method, theirs, mine.texts)
        tried.append(await call(stack, method, request, bearer(token)))
        assert tried[-1].code not in FAULTS, f"{request}\n{tried[-1]}"
        if tried[-1].code in REACHED:
            return
    pytest.fail("\n".join(map(str, tried)))


def of_files(method: Method) -> bool:
    """True if the RPC is about an import or an export."""
    return "ImportsService" in method.path or "ExportsService" in method.path


async def test_one_email_in_two_tenants_is_two_people(home: World, other_tenant: TenantOfTest) -> None:
    mine = await make_world(other_tenant, points=False, files=False)
    customers = other_tenant.calls(CustomersServiceStub, businesses=[mine.business])
    theirs = Customer(email=home.texts["email"], phone=home.texts["phone"])
    made = await customers.UpsertCustomer(UpsertCustomerRequest(customer=theirs))
    assert made.created
    assert made.customer.id not in home.ids.values()
    assert not made.customer.first_name
