"""One business with everything in it that a service keeps, made by the RPCs that make it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import grpc

from libs import clock, jobs
from libs.caller import Caller, acting_as
from libs.instants import stamp
from regulars.customers.v1.addresses_pb2 import Address, CreateAddressRequest
from regulars.customers.v1.addresses_pb2_grpc import AddressesServiceStub
from regulars.customers.v1.businesses_pb2 import (
    ATTRIBUTE_TYPE_TEXT,
    AttributeDefinition,
    Business,
    CreateAttributeRequest,
    CreateBusinessRequest,
)
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2 import CreateCustomerRequest, Customer, Source
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.exports_pb2 import EXPORT_STATE_COMPLETED, CreateExportRequest, GetExportRequest
from regulars.customers.v1.exports_pb2_grpc import ExportsServiceStub
from regulars.customers.v1.imports_pb2 import (
    IMPORT_STATE_COMPLETED,
    StartImportRequest,
    UploadImportRequest,
    UploadImportSettings,
    WatchImportRequest,
)
from regulars.customers.v1.imports_pb2_grpc import ImportsServiceStub
from regulars.customers.v1.notes_pb2 import CreateNoteRequest, Note
from regulars.customers.v1.notes_pb2_grpc import NotesServiceStub
from regulars.customers.v1.orders_pb2 import ORDER_STATUS_PAID, Order, RecordOrderRequest
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from regulars.customers.v1.views_pb2 import CreateViewRequest, SavedView
from regulars.customers.v1.views_pb2_grpc import ViewsServiceStub
from regulars.loyalty.v1 import ledger_pb2 as ledger
from regulars.loyalty.v1 import programs_pb2 as programs
from regulars.loyalty.v1 import rewards_pb2 as rewards
from regulars.loyalty.v1 import tiers_pb2 as tiers
from regulars.loyalty.v1.households_pb2 import CreateHouseholdInvitationRequest, CreateHouseholdRequest
from regulars.loyalty.v1.households_pb2_grpc import HouseholdsServiceStub, MyHouseholdServiceStub
from regulars.loyalty.v1.ledger_pb2_grpc import LedgerServiceStub
from regulars.loyalty.v1.loyalty_pb2 import GetMembershipRequest
from regulars.loyalty.v1.loyalty_pb2_grpc import JobsServiceStub, LoyaltyServiceStub
from regulars.loyalty.v1.programs_pb2_grpc import ProgramsServiceStub
from regulars.loyalty.v1.referrals_pb2 import CreateReferralRequest
from regulars.loyalty.v1.referrals_pb2_grpc import ReferralsServiceStub
from regulars.loyalty.v1.rewards_pb2_grpc import RedemptionsServiceStub, RewardsServiceStub
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from regulars.type.v1.job_pb2 import GetJobRequest
from regulars.type.v1.money_pb2 import Money
from tests.platform import TenantOfTest

FAR = timedelta(days=300)


@dataclass(frozen=True)
class World:
    """A business of a tenant. `ids` by kind ("customer"); `texts` by field ("email")."""

    tenant: TenantOfTest
    ids: Mapping[str, str]
    texts: Mapping[str, str]

    @property
    def business(self) -> str:
        """Id of the business."""
        return self.ids["business"]

    def secrets(self) -> set[str]:
        """What nobody else may be shown."""
        return {*self.ids.values(), *self.texts.values()}

    def token(self, *roles: str, customer: bool = False) -> str:
        """A token for this business alone: of its staff, or of its customer."""
        mine = self.ids["customer"] if customer else None
        return self.tenant.token(*roles, businesses=[self.business], customer=mine)


async def make_world(tenant: TenantOfTest, *, points: bool = True, files: bool = True) -> World:
    """A new business of the tenant, with one of each thing: what loyalty keeps, an import, an export."""
    mark = uuid4().hex
    texts = {
        "email": f"{mark}@example.com",
        "phone": f"+1415{2_000_000 + int(mark, 16) % 7_000_000}",
        "external_id": f"x{mark}",
        "source": f"shop{mark[:8]}",
        "tag": f"tag {mark}",
        "name": f"attribute_{mark}",
        "text": f"note {mark}",
        "city": f"City {mark}",
        "slug": tenant.slug,
        "tier": f"tier {mark}",
        "code": f"code{mark}",
    }
    business = await tenant.calls(BusinessesServiceStub).CreateBusiness(
        CreateBusinessRequest(business=Business(name=f"Shop {mark}", currency="USD", country="US"))
    )
    here = [business.id]
    await tenant.calls(BusinessesServiceStub, businesses=here).CreateAttribute(
        CreateAttributeRequest(attribute=AttributeDefinition(name=texts["name"], type=ATTRIBUTE_TYPE_TEXT))
    )
    customer = Customer(
        first_name=f"First {mark}",
        email=texts["email"],
        phone=texts["phone"],
        tags=[texts["tag"]],
        sources=[Source(name=texts["source"], external_id=texts["external_id"])],
    )
    customer.attributes[texts["name"]] = f"value {mark}"
    made = await tenant.calls(CustomersServiceStub, businesses=here).CreateCustomer(
        CreateCustomerRequest(customer=customer)
    )
    address = Address(
        street_lines=[f"Street {mark}"], city=texts["city"], state="NY", postal_code="10005", country="US"
    )
    address = await tenant.calls(AddressesServiceStub, businesses=here).CreateAddress(
        CreateAddressRequest(customer_id=made.id, address=address)
    )
    note = await tenant.calls(NotesServiceStub, businesses=here).CreateNote(
        CreateNoteRequest(customer_id=made.id, note=Note(text=texts["text"]))
    )
    order = Order(
        customer_id=made.id,
        external_id=f"order {mark}",
        status=ORDER_STATUS_PAID,
        placed_at=stamp(clock.now()),
        currency="USD",
        total=Money(amount_minor=100, currency="USD"),
    )
    recorded = await tenant.calls(OrdersServiceStub, businesses=here).RecordOrder(
        RecordOrderRequest(order=order)
    )
    view = await tenant.calls(ViewsServiceStub, businesses=here).CreateView(
        CreateViewRequest(view=SavedView(name=f"view {mark}", shared=True))
    )
    ids = {"customer": made.id, "business": business.id, "address": address.id, "note": note.id}
    ids |= {"order": recorded.result.order_id, "view": view.id}
    if points:
        await _joined(tenant, made.id, business.id)
        ids |= await _points(tenant, made.id, business.id, texts["tier"])
        ids |= await _rewards(tenant, made.id, business.id, texts["code"])
        ids |= await _referral(tenant, made.id, business.id)
        household_id, texts["invitation_code"] = await _household(tenant, made.id, business.id)
        ids |= {"household": household_id}
        other = await tenant.calls(CustomersServiceStub, businesses=here).CreateCustomer(
            CreateCustomerRequest(customer=Customer(email=f"other-{mark}@example.com"))
        )
        await _joined(tenant, other.id, business.id)
        ids |= {"to_customer": other.id}
    if files:
        ids |= {"export": await _exported(tenant, business.id)}
        ids |= {"import": await _imported(tenant, business.id, texts["email"])}
    return World(tenant, ids | await _jobs(tenant, business.id), texts)


async def _points(tenant: TenantOfTest, customer_id: str, business_id: str, tier: str) -> dict[str, str]:
    """The business's program and a rule of it, and points of the customer: given, spent and held."""
    here = [business_id]
    of_programs = tenant.calls(ProgramsServiceStub, businesses=here)
    (program,) = (await of_programs.ListPrograms(programs.ListProgramsRequest())).programs
    brings = programs.ReferralSettings(enabled=True, link_template="https://corner.example/?code={code}")
    settings = programs.ProgramSettings(transfers_allowed=True, referrals=brings, pooling_allowed=True)
    await of_programs.UpdateProgram(
        programs.UpdateProgramRequest(id=program.id, program=programs.Program(settings=settings))
    )
    bonus = programs.Bonus(trigger=programs.BONUS_TRIGGER_SIGN_UP, points=5)
    rule = await of_programs.CreateRule(
        programs.CreateRuleRequest(
            program_id=program.id, rule=programs.EarningRule(name="Welcome", bonus=bonus)
        )
    )
    ladder = tiers.TierConfiguration(tiers=[tiers.Tier(name="BRONZE"), tiers.Tier(name=tier, visits=9)])
    of_tiers = tenant.calls(TiersServiceStub, businesses=here)
    await of_tiers.UpdateTierConfiguration(tiers.UpdateTierConfigurationRequest(configuration=ladder))
    await of_tiers.SetTierOverride(
        tiers.SetTierOverrideRequest(customer_id=customer_id, tier=tier, reason="a fair")
    )
    bulk = await of_tiers.OverrideTiers(
        tiers.OverrideTiersRequest(ids=[business_id], tier=tier, reason="a fair")
    )
    of_jobs = tenant.calls(JobsServiceStub, businesses=here)
    async with asyncio.timeout(20):
        while not (await of_jobs.GetJob(GetJobRequest(id=bulk.id))).HasField("finished_at"):  # noqa: ASYNC110 – nobody tells us
            await asyncio.sleep(0.02)
    of_points = tenant.calls(LedgerServiceStub, businesses=here)
    await of_points.AdjustPoints(
        ledger.AdjustPointsRequest(customer_id=customer_id, points=2_000, reason="a gift")
    )
    spent = await of_points.RedeemPoints(ledger.RedeemPointsRequest(customer_id=customer_id, points=10))
    held = await of_points.HoldPoints(
        ledger.HoldPointsRequest(customer_id=customer_id, points=10, ttl_seconds=604_800)
    )
    return {"program": program.id, "rule": rule.id, "transaction": spent.id, "hold": held.id, "bulk": bulk.id}


async def _rewards(tenant: TenantOfTest, customer_id: str, business_id: str, code: str) -> dict[str, str]:
    """A reward with a pool, whose first code the customer has got."""
    here = [business_id]
    catalogue = tenant.calls(RewardsServiceStub, businesses=here)
    pool = await catalogue.CreateCodePool(
        rewards.CreateCodePoolRequest(code_pool=rewards.CodePool(name="Partner"))
    )
    await catalogue.ImportCodes(
        rewards.ImportCodesRequest(code_pool_id=pool.id, codes=[code, f"{code}-2", f"{code}-3"])
    )
    reward = await catalogue.CreateReward(
        rewards.CreateRewardRequest(
            reward=rewards.Reward(
                name="Voucher", kind=rewards.REWARD_KIND_VOUCHER_CODE, cost_points=5, code_pool_id=pool.id
            )
        )
    )
    got = await tenant.calls(RedemptionsServiceStub, businesses=here).RedeemReward(
        rewards.RedeemRewardRequest(customer_id=customer_id, reward_id=reward.id)
    )
    assert got.code == code
    return {"code_pool": pool.id, "reward": reward.id, "redemption": got.id}


async def _referral(tenant: TenantOfTest, customer_id: str, business_id: str) -> dict[str, str]:
    """An invitation by the customer."""
    invited = await tenant.calls(ReferralsServiceStub, businesses=[business_id]).CreateReferral(
        CreateReferralRequest(customer_id=customer_id)
    )
    return {"referral": invited.id}


async def _household(tenant: TenantOfTest, customer_id: str, business_id: str) -> tuple[str, str]:
    """A household of the customer, and the code of an invitation into it."""
    here = [business_id]
    made = await tenant.calls(HouseholdsServiceStub, businesses=here).CreateHousehold(
        CreateHouseholdRequest(customer_id=customer_id)
    )
    invited = await tenant.calls(
        MyHouseholdServiceStub, businesses=here, customer=customer_id
    ).CreateHouseholdInvitation(CreateHouseholdInvitationRequest())
    return made.id, invited.code


async def _joined(tenant: TenantOfTest, customer_id: str, business_id: str) -> None:
    """Returns once loyalty has heard of the customer."""
    loyalty = tenant.calls(LoyaltyServiceStub, businesses=[business_id])
    async with asyncio.timeout(20):
        while True:
            try:
                await loyalty.GetMembership(GetMembershipRequest(customer_id=customer_id))
            except grpc.aio.AioRpcError as error:
                if error.code() != grpc.StatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.02)
            else:
                return


async def _imported(tenant: TenantOfTest, business_id: str, email: str) -> str:
    """An import of the business that is over: its one customer was known, so that there is nothing to undo."""
    imports = tenant.calls(ImportsServiceStub, businesses=[business_id])

    async def parts() -> AsyncIterator[UploadImportRequest]:
        yield UploadImportRequest(settings=UploadImportSettings(file_name=f"{email}.csv"))
        yield UploadImportRequest(chunk=f"Email\n{email}\n".encode())

    made = await imports.UploadImport(parts())
    await imports.StartImport(StartImportRequest(id=made.id))
    async for progress in imports.WatchImport(WatchImportRequest(id=made.id)):
        last = progress
    assert last.state == IMPORT_STATE_COMPLETED, last
    return str(made.id)


async def _exported(tenant: TenantOfTest, business_id: str) -> str:
    """An export of the business with its file, once that is written."""
    exports = tenant.calls(ExportsServiceStub, businesses=[business_id])
    made = await exports.CreateExport(CreateExportRequest(columns=["id"]))
    async with asyncio.timeout(20):
        while made.state != EXPORT_STATE_COMPLETED:
            await asyncio.sleep(0.02)
            made = await exports.GetExport(GetExportRequest(id=made.id))
    return made.id


async def _jobs(tenant: TenantOfTest, business_id: str) -> dict[str, str]:
    """A job of the business in every service, due when no test runs any more."""
    caller = Caller(tenant_id=tenant.id, subject="walls", method="/walls/Make")
    made: dict[str, str] = {}
    for name, runtime in tenant.stack.runtimes.items():
        if not hasattr(runtime, "db"):  # the gateway
            continue
        with acting_as(caller):
            async with runtime.db.tx() as tx:
                job_id = await jobs.enqueue(
                    tx, "wait", business_id=UUID(business_id), due_at=clock.now() + FAR
                )
        made[f"{name}_job"] = str(job_id)
    return made
