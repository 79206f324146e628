"""A business to try things at, and what refusals look like to a gRPC client."""

import itertools
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.addresses_pb2_grpc import AddressesServiceStub
from regulars.customers.v1.businesses_pb2 import Business, CreateBusinessRequest
from regulars.customers.v1.businesses_pb2_grpc import BusinessesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.notes_pb2_grpc import NotesServiceStub
from regulars.customers.v1.search_pb2 import SearchCustomersRequest, SearchCustomersResponse
from regulars.customers.v1.search_pb2_grpc import SearchServiceStub
from tests.platform import TenantOfTest

_numbers = itertools.count(1)
StubT = TypeVar("StubT")


@dataclass(frozen=True)
class Refusal:
    """A status as a client sees it. `fields` maps each wrong field to its reason."""

    code: grpc.StatusCode
    reason: str
    metadata: dict[str, str]
    fields: dict[str, str]


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """What the details of an error say."""
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    status = status_pb2.Status.FromString(details if isinstance(details, bytes) else b"")
    reason, metadata, fields = "", {}, {}
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = {violation.field: violation.reason for violation in bad.field_violations}
    return Refusal(error.code(), reason, metadata, fields)


async def refused(call: Any) -> Refusal:
    """The refusal of a call that must not succeed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal_of(caught.value)


@dataclass(frozen=True)
class Shop:
    """A business of a test's tenant."""

    tenant: TenantOfTest
    business: Business

    @property
    def id(self) -> str:
        """Id of the business."""
        return self.business.id

    def calls(self, stub: Any, *roles: str, **claims: Any) -> Any:
        """A stub whose token is for this business alone."""
        return self.tenant.calls(stub, *roles, businesses=[self.id], **claims)

    @property
    def customers(self) -> CustomersServiceStub:
        """Calls about customers."""
        found: CustomersServiceStub = self.calls(CustomersServiceStub)
        return found

    @property
    def addresses(self) -> AddressesServiceStub:
        """Calls about addresses."""
        found: AddressesServiceStub = self.calls(AddressesServiceStub)
        return found

    @property
    def notes(self) -> NotesServiceStub:
        """Calls about notes."""
        found: NotesServiceStub = self.calls(NotesServiceStub)
        return found

    async def create(self, **fields: Any) -> pb.Customer:
        """A customer of this business; has an e-mail of their own unless told otherwise."""
        if not {"email", "phone", "type"} & set(fields):
            fields["email"] = f"person{next(_numbers)}@example.com"
        return await self.customers.CreateCustomer(pb.CreateCustomerRequest(customer=pb.Customer(**fields)))

    async def search(self, query: str = "", *roles: str, **fields: Any) -> SearchCustomersResponse:
        """What a search at this business answers."""
        request = SearchCustomersRequest(query=query, **fields)
        found: SearchCustomersResponse = await self.calls(SearchServiceStub, *roles).SearchCustomers(request)
        return found


async def open_shop(tenant: TenantOfTest, **fields: Any) -> Shop:
    """A new business of the tenant."""
    values = {"name": "Corner Shop", "currency": "USD", "country": "US"} | fields
    made = await tenant.calls(BusinessesServiceStub).CreateBusiness(
        CreateBusinessRequest(business=Business(**values))
    )
    return Shop(tenant, made)
