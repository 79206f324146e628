"""Customers over REST as a client of the API meets them: on the real gateway, down to the rows."""

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from libs.ids import new_id
from tests.customers.shop import Shop, open_shop
from tests.platform import TenantOfTest
from tests.scan.sentinels import Sentinels

CUSTOMERS = "/api/v1/customers"
Json = dict[str, Any]


@pytest.fixture
async def customer(shop: Shop, rest: httpx.AsyncClient, sentinels: Sentinels) -> Json:
    """A customer with an e-mail, a name and a birth date."""
    body = {"email": sentinels.email(), "firstName": sentinels.name(), "bornOn": sentinels.birth_date}
    answer = await rest.post(CUSTOMERS, json=body)
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


def path_of(customer: Json) -> str:
    return f"{CUSTOMERS}/{customer['id']}"


def error_of(answer: httpx.Response, status: int) -> Json:
    """The error of a refusal, which always has the same shape."""
    assert answer.status_code == status, answer.text
    error: Json = answer.json()["error"]
    assert set(error) == {"code", "status", "reason", "message", "metadata", "violations", "requestId"}
    assert (error["code"], error["requestId"]) == (status, answer.headers["x-request-id"])
    return error


def fields_of(error: Json) -> dict[str, str]:
    """Reason of each wrong field."""
    return {violation["field"]: violation["reason"] for violation in error["violations"]}


async def test_created_is_201_with_its_place_and_etag(rest: httpx.AsyncClient, customer: Json) -> None:
    email = customer["email"]
    assert (customer["status"], customer["type"], customer["etag"]) == ("ACTIVE", "REGISTERED", "1")
    found = await rest.get(path_of(customer))
    assert (found.status_code, found.headers["etag"]) == (200, '"1"')
    assert found.json() == customer
    assert (await rest.post(f"{CUSTOMERS}/lookup", json={"email": email.upper()})).json() == customer


async def test_a_taken_email_is_409_and_names_field_and_holder(
    rest: httpx.AsyncClient, customer: Json
) -> None:
    error = error_of(await rest.post(CUSTOMERS, json={"email": customer["email"].upper()}), 409)
    assert (error["status"], error["reason"]) == ("ALREADY_EXISTS", "EMAIL_TAKEN")
    assert error["metadata"] == {"field": "customer.email", "customer_id": customer["id"]}


async def test_all_that_is_wrong_is_told_at_once_and_by_json_names(
    shop: Shop, rest: httpx.AsyncClient
) -> None:
    body = {
        "emial": "ann@example.com",
        "email": "nobody",
        "phone": "12",
        "bornOn": "2999-01-01",
        "tags": ["fine", "x" * 65],
        "status": "SLEEPING",
        "sources": [{"name": "shopify", "externalId": 7}],
    }
    error = error_of(await rest.post(CUSTOMERS, json=body), 400)
    assert (error["status"], error["reason"]) == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    fields = fields_of(error)
    unreadable = {"customer.emial", "customer.status", "customer.sources[0].externalId"}
    wrong = {"customer.email", "customer.phone", "customer.bornOn", "customer.tags[1]"}
    assert set(fields) == unreadable | wrong
    misspelt = next(v for v in error["violations"] if v["field"].endswith("emial"))
    assert misspelt["reason"] == "UNKNOWN_FIELD"
    assert '"email"' in misspelt["description"]


async def test_a_key_given_twice_is_refused(shop: Shop, rest: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    twice = b'{"email": "a@example.com", "email": "b@example.com"}'
    error = error_of(await rest.post(CUSTOMERS, content=twice, headers=headers), 400)
    assert fields_of(error) == {"customer.email": "DUPLICATE_FIELD"}
    for nonsense in (b"{", b"[]", b'"text"', b"\xff\xfe", b'{"email": NaN}', b""):
        error_of(await rest.post(CUSTOMERS, content=nonsense, headers=headers), 400)


async def test_patch_changes_what_is_there_and_null_clears(rest: httpx.AsyncClient, customer: Json) -> None:
    body = {"company": "Acme", "firstName": None, "handles": {"x": "@zoe"}, "tags": ["a"]}
    changed = await rest.patch(path_of(customer), json=body)
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"'), changed.text
    found = changed.json()
    assert (found["company"], found["handles"]["x"], found["tags"]) == ("Acme", "zoe", ["a"])
    assert "firstName" not in found
    assert (found["email"], found["bornOn"]) == (customer["email"], customer["bornOn"])
    merge = {"content-type": "application/merge-patch+json"}
    again = await rest.patch(path_of(customer), content=b'{"handles": {"x": null}}', headers=merge)
    assert (again.status_code, again.json().get("handles", {}).get("x")) == (200, None)
    both = await rest.patch(path_of(customer), json={"email": None})
    required = dict.fromkeys(("customer.email", "customer.phone"), "REQUIRED")
    assert fields_of(error_of(both, 400)) == required


async def test_put_replaces_all_of_it(rest: httpx.AsyncClient, customer: Json) -> None:
    whole = {**customer, "company": "Acme"}
    del whole["bornOn"]
    replaced = await rest.put(path_of(customer), json=whole)
    assert replaced.status_code == 200, replaced.text
    found = replaced.json()
    assert (found["company"], found["firstName"]) == ("Acme", customer["firstName"])
    assert "bornOn" not in found


async def test_etags_save_an_answer_and_a_lost_change(rest: httpx.AsyncClient, customer: Json) -> None:
    path = path_of(customer)
    known = await rest.get(path, headers={"if-none-match": '"7", W/"1"'})
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", '"1"')
    assert (await rest.patch(path, json={"company": "A"}, headers={"if-match": '"1"'})).status_code == 200
    stale = await rest.patch(path, json={"company": "B"}, headers={"if-match": '"1"'})
    error = error_of(stale, 412)
    assert (error["status"], error["reason"]) == ("ABORTED", "ETAG_MISMATCH")
    assert error_of(await rest.delete(path, headers={"if-match": '"1"'}), 412)
    assert error_of(await rest.patch(path, json={"company": "B"}, headers={"if-match": 'W/"2"'}), 412)
    assert (await rest.patch(path, json={"company": "C"}, headers={"if-match": "*"})).status_code == 200
    assert (await rest.get(path, headers={"if-none-match": '"1"'})).json()["company"] == "C"


async def test_of_many_changes_to_one_version_exactly_one_is_made(
    rest: httpx.AsyncClient, customer: Json
) -> None:
    path, known = path_of(customer), {"if-match": '"1"'}
    answers = await asyncio.gather(
        *(rest.patch(path, json={"company": f"Firm {n}"}, headers=known) for n in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200, *[412] * 7]
    won = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await rest.get(path)).json() == won


async def test_a_request_that_comes_twice_is_done_once(
    shop: Shop, rest: httpx.AsyncClient, sentinels: Sentinels
) -> None:
    key, body = {"idempotency-key": new_id().hex}, {"email": sentinels.email()}
    sent = (rest.post(CUSTOMERS, json=body, headers=key) for _ in range(5))
    first, *others = await asyncio.gather(*sent)
    assert first.status_code == 201, first.text
    for again in others:
        assert (again.status_code, again.json()) == (201, first.json())
        assert again.headers["location"] == first.headers["location"]
    other = await rest.post(CUSTOMERS, json={"email": sentinels.email()}, headers=key)
    assert error_of(other, 400)["reason"] == "REQUEST_ID_REUSED"
    path = f"{CUSTOMERS}/{first.json()['id']}"
    key, change = {"idempotency-key": new_id().hex}, {"tags": ["once"]}
    assert [(await rest.patch(path, json=change, headers=key)).json()["etag"] for _ in range(3)] == ["2"] * 3
    long = await rest.post(CUSTOMERS, json=body, headers={"idempotency-key": "x" * 1000})
    assert error_of(long, 400)


async def test_pages_give_each_customer_once(
    shop: Shop, rest: httpx.AsyncClient, sentinels: Sentinels
) -> None:
    made = [(await rest.post(CUSTOMERS, json={"email": sentinels.email()})).json()["id"] for _ in range(7)]
    seen: list[str] = []
    query: dict[str, Any] = {"pageSize": 3, "readMask": "id"}
    while True:
        page = await rest.get(CUSTOMERS, params=query)
        assert page.status_code == 200, page.text
        found = page.json()
        assert all(set(each) <= {"id"} for each in found["customers"])
        seen += [each["id"] for each in found["customers"]]
        token = found.get("nextPageToken")
        if not token:
            break
        query["pageToken"] = token
    assert seen == made[::-1]
    for wrong in ({"pageToken": "made-up"}, {"pageToken": query["pageToken"], "orderBy": "created_at asc"}):
        error = error_of(await rest.get(CUSTOMERS, params=wrong), 400)
        assert fields_of(error) == {"pageToken": "PAGE_TOKEN_INVALID"}
    wrong_size = error_of(await rest.get(CUSTOMERS, params={"pageSize": "many"}), 400)
    assert set(fields_of(wrong_size)) == {"pageSize"}
    assert set(fields_of(error_of(await rest.get(CUSTOMERS, params={"pageSize": 1001}), 400))) == {"pageSize"}


async def test_a_misspelt_query_parameter_is_named_with_what_was_meant(
    shop: Shop, rest: httpx.AsyncClient
) -> None:
    error = error_of(await rest.get(CUSTOMERS, params={"pagesize": 3, "limit": 5}), 400)
    fields = fields_of(error)
    assert set(fields) == {"pagesize", "limit"}
    assert any("pageSize" in violation["description"] for violation in error["violations"])


async def test_a_path_may_hold_anything_percent_encoded(rest: httpx.AsyncClient, customer: Json) -> None:
    tag = "50% off / día"
    assert (await rest.post(f"{path_of(customer)}/tags", json={"tags": [tag]})).json()["tags"] == [tag]
    gone = await rest.delete(f"{path_of(customer)}/tags/{quote(tag, safe='')}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert not (await rest.get(path_of(customer))).json().get("tags")
    assert error_of(await rest.get(f"{CUSTOMERS}/not-an-id"), 400)
    assert error_of(await rest.get(f"{CUSTOMERS}/%ff%fe"), 400)
    assert error_of(await rest.get(f"{CUSTOMERS}/{new_id()}"), 404)["reason"] == "CUSTOMER_NOT_FOUND"


async def test_enums_go_in_and_out_by_their_short_names(rest: httpx.AsyncClient, customer: Json) -> None:
    for given in ("VIP", "CUSTOMER_STATUS_VIP"):
        answer = await rest.patch(path_of(customer), json={"status": given})
        assert (answer.status_code, answer.json()["status"]) == (200, "VIP")
    gone = await rest.delete(path_of(customer), params={"mode": "SOFT"})
    assert gone.status_code == 204, gone.text
    assert error_of(await rest.get(path_of(customer)), 404)
    shown = await rest.get(path_of(customer), params={"showDeleted": "true"})
    assert shown.status_code == 200
    assert "eraseDueAt" not in shown.json()


async def test_another_tenants_customer_is_not_there(
    customer: Json, other_tenant: TenantOfTest, rest: httpx.AsyncClient
) -> None:
    await open_shop(other_tenant)
    async with other_tenant.rest() as stranger:
        assert error_of(await stranger.get(path_of(customer)), 404)
        assert error_of(await stranger.patch(path_of(customer), json={"company": "x"}), 404)
    assert (await rest.get(path_of(customer))).json() == customer
