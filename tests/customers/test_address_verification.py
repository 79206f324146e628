"""Deciding whether addresses are right, over gRPC and REST."""

import asyncio
from typing import Any

import grpc
from google.protobuf.field_mask_pb2 import FieldMask

from libs.ids import new_id
from regulars.customers.v1 import addresses_pb2 as pb
from regulars.customers.v1 import customers_pb2
from regulars.customers.v1.addresses_pb2_grpc import AddressesServiceStub
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from tests.customers.shop import Shop, open_shop, refused
from tests.customers.test_addresses import add
from tests.platform import TenantOfTest

PENDING = pb.ADDRESS_VERIFICATION_STATUS_PENDING
VERIFIED = pb.ADDRESS_VERIFICATION_STATUS_VERIFIED
REJECTED = pb.ADDRESS_VERIFICATION_STATUS_REJECTED


async def waiting(shop: Shop, *roles: str, **asked: Any) -> pb.ListPendingAddressesResponse:
    request = pb.ListPendingAddressesRequest(**asked)
    found: pb.ListPendingAddressesResponse = await shop.calls(
        AddressesServiceStub, *roles
    ).ListPendingAddresses(request)
    return found


async def counts(shop: Shop) -> tuple[int, int, int]:
    request = pb.GetAddressVerificationStatsRequest()
    found = await shop.addresses.GetAddressVerificationStats(request)
    return found.pending, found.verified, found.rejected


def verify(
    customer_id: str, address_id: str, decision: Any = VERIFIED, **said: Any
) -> pb.VerifyAddressRequest:
    return pb.VerifyAddressRequest(customer_id=customer_id, id=address_id, decision=decision, **said)


async def test_a_decision_tells_who_when_and_where(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    assert made.verification.status == PENDING
    assert made.verification.at == made.created_at
    assert not made.verification.HasField("decided_by")
    staff: AddressesServiceStub = shop.calls(AddressesServiceStub, "support", subject="u-7", name="Uma")
    decided = await staff.VerifyAddress(
        verify(customer.id, made.id, notes=" rang the bell ", latitude=52.5186, longitude=13.3762)
    )
    found = decided.verification
    assert (found.status, found.notes) == (VERIFIED, "rang the bell")
    assert (found.decided_by.subject, found.decided_by.display_name) == ("u-7", "Uma")
    assert (decided.latitude, decided.longitude) == (52.5186, 13.3762)
    got = await shop.addresses.GetAddress(pb.GetAddressRequest(customer_id=customer.id, id=made.id))
    assert got == decided
    assert (made.etag, decided.etag) == ("2", "3")


async def test_the_same_decision_again_changes_nothing(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    request = verify(customer.id, made.id, REJECTED, notes="no such street")
    first = await shop.addresses.VerifyAddress(request)
    assert await shop.addresses.VerifyAddress(request) == first
    other = await shop.addresses.VerifyAddress(verify(customer.id, made.id))
    assert (other.verification.status, other.verification.notes, other.etag) == (VERIFIED, "", "4")


async def test_who_moves_waits_again_and_who_does_not_stays(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    await shop.addresses.VerifyAddress(verify(customer.id, made.id, notes="seen"))

    async def change(**fields: Any) -> pb.Address:
        mask = FieldMask(paths=list(fields))
        changed: pb.Address = await shop.addresses.UpdateAddress(
            pb.UpdateAddressRequest(
                customer_id=customer.id, id=made.id, address=pb.Address(**fields), update_mask=mask
            )
        )
        return changed

    kept: list[dict[str, Any]] = [{"label": "home"}, {"recipient": "Ann"}, {"type": pb.ADDRESS_TYPE_BILLING}]
    for fields in kept:
        assert (await change(**fields)).verification.status == VERIFIED
    moves: list[dict[str, Any]] = [
        {"street_lines": ["Platz der Republik 2"]},
        {"city": "Potsdam"},
        {"postal_code": "14467"},
    ]
    for fields in moves:
        moved = await change(**fields)
        assert (moved.verification.status, moved.verification.notes) == (PENDING, "")
        assert not moved.verification.HasField("decided_by")
        await shop.addresses.VerifyAddress(verify(customer.id, made.id))


async def test_what_waits_is_listed_by_age_and_counted(shop: Shop, other_shop: Shop) -> None:
    people = [await shop.create() for _ in range(3)]
    made = [await add(shop, people[n % 3].id) for n in range(5)]
    stranger = await other_shop.create()
    await add(other_shop, stranger.id)
    first = await waiting(shop, page_size=2)
    rest = await waiting(shop, page_token=first.next_page_token)
    assert [each.address.id for each in [*first.addresses, *rest.addresses]] == [one.id for one in made]
    assert {each.customer_id for each in first.addresses} <= {person.id for person in people}
    assert not rest.next_page_token
    await shop.addresses.VerifyAddress(verify(people[0].id, made[0].id))
    await shop.addresses.VerifyAddress(verify(people[1].id, made[1].id, REJECTED))
    assert await counts(shop) == (3, 1, 1)
    assert await counts(other_shop) == (1, 0, 0)
    await shop.customers.DeleteCustomer(customers_pb2.DeleteCustomerRequest(id=people[2].id))
    assert await counts(shop) == (2, 1, 1)
    assert len((await waiting(shop)).addresses) == 2
    empty = await shop.addresses.GetAddressVerificationStats(pb.GetAddressVerificationStatsRequest())
    assert empty.oldest_pending_at == made[3].created_at


async def test_a_batch_answers_each(shop: Shop, other_shop: Shop) -> None:
    customer, stranger = await shop.create(), await other_shop.create()
    made = [await add(shop, customer.id) for _ in range(3)]
    theirs = await add(other_shop, stranger.id)

    def decide(
        customer_id: str, address_id: str, decision: Any = VERIFIED, **said: Any
    ) -> pb.AddressDecision:
        return pb.AddressDecision(customer_id=customer_id, id=address_id, decision=decision, **said)

    request = pb.VerifyAddressesRequest(
        items=[
            decide(customer.id, made[0].id),
            decide(stranger.id, theirs.id),
            decide(customer.id, str(new_id())),
            decide(customer.id, made[1].id, REJECTED, notes="wrong town"),
            decide(customer.id, made[2].id, etag="1"),
            decide(customer.id, made[2].id, latitude=1.0),
        ]
    )
    answer = await shop.addresses.VerifyAddresses(request)
    assert [(each.status, each.reason) for each in answer.results] == [
        (VERIFIED, ""),
        (0, "CUSTOMER_NOT_FOUND"),
        (0, "ADDRESS_NOT_FOUND"),
        (REJECTED, ""),
        (0, "ETAG_MISMATCH"),
        (0, "INVALID_FIELDS"),
    ]
    assert await counts(shop) == (1, 1, 1)
    assert await counts(other_shop) == (1, 0, 0)
    again = await shop.addresses.VerifyAddresses(request)
    assert [each.status for each in again.results] == [each.status for each in answer.results]
    most = pb.VerifyAddressesRequest(items=[decide(customer.id, made[0].id)] * 501)
    assert (await refused(shop.addresses.VerifyAddresses(most))).code is grpc.StatusCode.INVALID_ARGUMENT


async def test_what_was_changed_meanwhile_is_not_decided(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    await shop.addresses.UpdateAddress(
        pb.UpdateAddressRequest(
            customer_id=customer.id, id=made.id, address=pb.Address(street_lines=["Elsewhere 5"])
        )
    )
    stale = await refused(shop.addresses.VerifyAddress(verify(customer.id, made.id, etag=made.etag)))
    assert stale.reason == "ETAG_MISMATCH"
    for decision in (0, PENDING, 9):
        wrong = await refused(shop.addresses.VerifyAddress(verify(customer.id, made.id, decision)))
        assert wrong.code is grpc.StatusCode.INVALID_ARGUMENT
    half = await refused(shop.addresses.VerifyAddress(verify(customer.id, made.id, latitude=5.0)))
    assert half.fields == {"longitude": "REQUIRED"}


async def test_a_decision_and_a_move_at_once_never_leave_a_verified_place_that_nobody_saw(shop: Shop) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    move = pb.UpdateAddressRequest(
        customer_id=customer.id, id=made.id, address=pb.Address(street_lines=["Elsewhere 5"])
    )
    await asyncio.gather(
        shop.addresses.UpdateAddress(move),
        shop.addresses.VerifyAddress(verify(customer.id, made.id, etag=made.etag)),
        return_exceptions=True,
    )
    got = await shop.addresses.GetAddress(pb.GetAddressRequest(customer_id=customer.id, id=made.id))
    assert (list(got.street_lines), got.verification.status) == (["Elsewhere 5"], PENDING)


async def test_nobody_else_decides(shop: Shop, other_shop: Shop, other_tenant: TenantOfTest) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    theirs = await open_shop(other_tenant)
    for each in (other_shop, theirs):
        problem = await refused(each.addresses.VerifyAddress(verify(customer.id, made.id)))
        assert problem.code is grpc.StatusCode.NOT_FOUND
        assert not (await waiting(each)).addresses
    for role in ("marketer", "analyst", "compliance"):
        staff: AddressesServiceStub = shop.calls(AddressesServiceStub, role)
        problem = await refused(staff.VerifyAddress(verify(customer.id, made.id)))
        assert problem.code is grpc.StatusCode.PERMISSION_DENIED


async def test_of_two_businesses_of_one_person_either_decides(
    shop: Shop, other_shop: Shop, tenant: TenantOfTest
) -> None:
    customer = await shop.create()
    made = await add(shop, customer.id)
    joins = customers_pb2.JoinBusinessRequest(id=customer.id, business_id=other_shop.id)
    await tenant.calls(CustomersServiceStub).JoinBusiness(joins)
    await other_shop.addresses.VerifyAddress(verify(customer.id, made.id))
    assert await counts(shop) == await counts(other_shop) == (0, 1, 0)


async def test_over_rest(shop: Shop, tenant: TenantOfTest) -> None:
    customer = await shop.create()
    made = [await add(shop, customer.id) for _ in range(2)]
    async with tenant.rest("support", businesses=[shop.id]) as client:
        listed = await client.get("/api/v1/addresses/pending-verification", params={"pageSize": 1})
        assert [each["address"]["id"] for each in listed.json()["addresses"]] == [made[0].id]
        one = await client.post(
            f"/api/v1/customers/{customer.id}/addresses/{made[0].id}/verify",
            json={"decision": "VERIFIED", "notes": "ok", "latitude": 52.5, "longitude": 13.4},
        )
        assert one.status_code == 200, one.text
        assert (one.json()["verification"]["status"], one.json()["latitude"]) == ("VERIFIED", 52.5)
        decision = {"customerId": customer.id, "id": made[1].id, "decision": "REJECTED"}
        many = await client.post("/api/v1/addresses/verify-batch", json={"items": [decision]})
        assert many.json()["results"][0]["status"] == "REJECTED"
        stats = (await client.get("/api/v1/addresses/verification-stats")).json()
        assert (stats["verified"], stats["rejected"]) == ("1", "1")
