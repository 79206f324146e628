"""A customer with their own token."""

import grpc
import httpx

from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import me_pb2
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.me_pb2_grpc import MeServiceStub
from tests.customers.shop import Shop, refused


async def test_a_customer_sees_and_changes_themselves_and_nobody_else(shop: Shop) -> None:
    me = await shop.create(first_name="Ann", email="ann@example.com", tags=["watch out"])
    other = await shop.create()
    mine = shop.calls(MeServiceStub, customer=me.id)
    got = await mine.GetMe(me_pb2.GetMeRequest())
    assert (got.id, got.first_name, list(got.tags)) == (me.id, "Ann", [])
    changed = await mine.UpdateMe(
        me_pb2.UpdateMeRequest(customer=pb.Customer(last_name="Lee"), etag=got.etag)
    )
    assert changed.full_name == "Ann Lee"
    as_staff = await shop.customers.GetCustomer(pb.GetCustomerRequest(id=me.id))
    assert (as_staff.last_name, list(as_staff.tags)) == ("Lee", ["watch out"])
    reach = shop.calls(CustomersServiceStub, customer=me.id).GetCustomer(pb.GetCustomerRequest(id=other.id))
    assert (await refused(reach)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_what_the_business_decides_a_customer_cannot_write(shop: Shop) -> None:
    me = await shop.create(email="ann@example.com")
    async with shop.tenant.rest(customer=me.id, businesses=[shop.id]) as client:
        wrong = await client.patch("/api/v1/me?updateMask=status,emailVerified", json={"status": "VIP"})
        assert wrong.status_code == 400
        ignored = await client.patch("/api/v1/me", json={"firstName": "Ann"})
        assert (ignored.status_code, ignored.json()["firstName"]) == (200, "Ann")


async def test_staff_have_no_me(rest: httpx.AsyncClient) -> None:
    answer = await rest.get("/api/v1/me")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "PERMISSION_DENIED")
