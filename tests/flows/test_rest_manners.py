"""HTTP as the gateway of the whole product speaks it: methods, types, sizes, callers, limits, pages of its own."""

import asyncio
import re
from typing import Any

import httpx
import psycopg
import pytest
from openapi_spec_validator import validate

from libs.run.stack.home import free_port
from tests.customers.shop import Shop
from tests.flows.gateways import another_gateway
from tests.flows.looking import rows
from tests.flows.test_rest import CUSTOMERS, error_of
from tests.libs.rooms import becomes
from tests.platform import Stack, TenantOfTest

ORIGIN = {"origin": "https://shop.example"}


async def test_a_wrong_method_is_405_and_says_which_are_right(shop: Shop, rest: httpx.AsyncClient) -> None:
    answer = await rest.delete(CUSTOMERS)
    assert error_of(answer, 405)["reason"] == "METHOD_NOT_ALLOWED"
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    asked = await rest.options(CUSTOMERS)
    assert (asked.status_code, asked.headers["allow"]) == (204, answer.headers["allow"])
    assert error_of(await rest.get("/api/v1/custommers"), 404)["reason"] == "NO_SUCH_PATH"


async def test_head_is_get_without_a_body(shop: Shop, rest: httpx.AsyncClient) -> None:
    got, head = await rest.get(CUSTOMERS), await rest.head(CUSTOMERS)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(got.content))


async def test_a_body_too_large_or_of_another_type_is_refused(shop: Shop, rest: httpx.AsyncClient) -> None:
    large = await rest.post(CUSTOMERS, json={"company": "x" * (1 << 20)})
    assert error_of(large, 413)["metadata"] == {"limit_bytes": str(1 << 20)}
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"):
        answer = await rest.post(CUSTOMERS, content=b"{}", headers={"content-type": kind})
        assert error_of(answer, 415)["reason"] == "UNSUPPORTED_MEDIA_TYPE"
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert error_of(await rest.post(CUSTOMERS, content=b"{}", headers=packed), 415)


async def test_an_answer_that_nobody_accepts_is_406(shop: Shop, rest: httpx.AsyncClient) -> None:
    answer = await rest.get(CUSTOMERS, headers={"accept": "text/html, image/*"})
    assert error_of(answer, 406)["metadata"] == {"offered": "application/json"}
    for accepted in ("application/json", "application/*;q=0.1", "text/html, */*;q=0.1"):
        assert (await rest.get(CUSTOMERS, headers={"accept": accepted})).status_code == 200


async def test_who_is_nobody_or_may_not_is_told_so(shop: Shop, tenant: TenantOfTest) -> None:
    async with httpx.AsyncClient(base_url=tenant.stack.rest, trust_env=False) as nobody:
        answer = await nobody.get(CUSTOMERS)
        assert error_of(answer, 401)["status"] == "UNAUTHENTICATED"
        assert answer.headers["www-authenticate"] == 'Bearer realm="regulars"'
        expired = {"authorization": f"Bearer {tenant.token(ttl_seconds=-120)}"}
        answer = await nobody.get(CUSTOMERS, headers=expired)
        assert error_of(answer, 401)
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
    async with tenant.rest("analyst") as analyst:
        assert (await analyst.get(CUSTOMERS)).status_code == 200
        error = error_of(await analyst.post(CUSTOMERS, json={"email": "a@example.com"}), 403)
        assert (error["status"], error["metadata"]) == (
            "PERMISSION_DENIED",
            {"permission": "customers.write"},
        )


async def test_a_role_that_may_not_see_contact_data_is_told_what_is_left_out(
    shop: Shop, tenant: TenantOfTest
) -> None:
    made = await shop.create(email="ann.masked@example.com", first_name="Ann")
    async with tenant.rest("analyst") as analyst:
        found = (await analyst.get(f"{CUSTOMERS}/{made.id}")).json()
        assert {"email", "firstName", "fullName"} <= set(found["maskedFields"])
        assert not {"email", "firstName", "fullName"} & set(found)


async def test_request_ids_come_back_or_are_made(shop: Shop, rest: httpx.AsyncClient) -> None:
    mine = await rest.get(CUSTOMERS, headers={"x-request-id": "order-4711-a"})
    assert mine.headers["x-request-id"] == "order-4711-a"
    for strange in ("", "ann@example.com", "x" * 65):
        made = (await rest.get(CUSTOMERS, headers={"x-request-id": strange})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f-]{36}", made)


async def test_browsers_of_known_origins_may_read_the_answers(shop: Shop, tenant: TenantOfTest) -> None:
    async with another_gateway(tenant, CORS_ORIGINS="https://shop.example") as client:
        preflight = await client.options(
            CUSTOMERS,
            headers={
                **ORIGIN,
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization, content-type, idempotency-key",
            },
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        assert "idempotency-key" in preflight.headers["access-control-allow-headers"].lower()
        answer = await client.get(CUSTOMERS, headers=ORIGIN)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "etag" in answer.headers["access-control-expose-headers"].lower()
        stranger = await client.get(CUSTOMERS, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_too_many_requests_are_429_with_the_time_to_wait(shop: Shop, tenant: TenantOfTest) -> None:
    async with another_gateway(tenant, RATE_LIMIT_CLIENT="3") as client:
        answers = [await client.get(CUSTOMERS) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["ratelimit"].split(";")[1] for answer in answers] == [
            "r=2",
            "r=1",
            "r=0",
            "r=0",
        ]
        assert answers[0].headers["ratelimit-policy"] == '"client";q=3;w=60'
        assert error_of(answers[3], 429)["status"] == "RESOURCE_EXHAUSTED"
        assert 1 <= int(answers[3].headers["retry-after"]) <= 61
        assert (await client.get("/healthz")).status_code == 200


async def test_a_service_that_is_away_takes_only_its_own_calls_down(shop: Shop, tenant: TenantOfTest) -> None:
    made = await shop.create()
    nowhere = f"127.0.0.1:{free_port(set())}"
    async with another_gateway(tenant, LOYALTY_ADDRESS=nowhere) as client:
        away = await client.get(f"{CUSTOMERS}/{made.id}/loyalty")
        error = error_of(away, 503)
        assert (error["status"], error["message"]) == ("UNAVAILABLE", "Temporarily unavailable; try again.")
        assert int(away.headers["retry-after"]) >= 1
        assert nowhere not in away.text
        assert (await client.get(f"{CUSTOMERS}/{made.id}")).status_code == 200
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["services"]["loyalty"] == "unavailable"
    async with another_gateway(tenant, CUSTOMERS_ADDRESS=nowhere) as client:
        assert error_of(await client.post(CUSTOMERS, json={"email": "a@example.com"}), 503)


async def test_a_client_that_goes_away_stops_its_call_down_to_the_database(
    stack: Stack, shop: Shop, rest: httpx.AsyncClient
) -> None:
    made = await shop.create()
    url = stack.admin_url.rpartition("/")[0] + f"/{stack.settings.database}"
    waiting = "select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"

    async def waiters() -> int:
        return int((await rows(stack, waiting, stack.settings.database))[0]["n"])

    async with await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute(
            "select 1 from customers.customers where customer_id = %s for update", (made.id,)
        )
        call = asyncio.create_task(rest.patch(f"{CUSTOMERS}/{made.id}", json={"company": "Never"}))
        await becomes(waiters, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await becomes(waiters, 0)
    found = (await rest.get(f"{CUSTOMERS}/{made.id}")).json()
    assert (found["etag"], "company" in found) == ("1", False)


async def test_a_deadline_of_the_clients_own_is_kept(
    stack: Stack, shop: Shop, rest: httpx.AsyncClient
) -> None:
    made = await shop.create()
    url = stack.admin_url.rpartition("/")[0] + f"/{stack.settings.database}"
    async with await psycopg.AsyncConnection.connect(url) as holder:
        await holder.execute(
            "select 1 from customers.customers where customer_id = %s for update", (made.id,)
        )
        path, hurry = f"{CUSTOMERS}/{made.id}", {"x-request-timeout": "500ms"}
        answer = await rest.patch(path, json={"company": "Never"}, headers=hurry)
        assert error_of(answer, 504)["status"] == "DEADLINE_EXCEEDED"
    assert (await rest.get(path)).json()["etag"] == "1"


async def test_the_document_is_valid_and_its_page_is_all_from_here(rest: httpx.AsyncClient) -> None:
    async with httpx.AsyncClient(base_url=rest.base_url, trust_env=False) as anybody:
        document: Any = (await anybody.get("/openapi.json")).json()
        validate(document)
        assert document["openapi"].startswith("3.1")
        assert {"/api/v1/customers", "/api/v1/customers/{id}"} <= set(document["paths"])
        page = await anybody.get("/docs")
        assert page.status_code == 200
        links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert links
        for link in links:
            assert link.startswith(("/", "data:")), link
            if link.startswith("/"):
                assert (await anybody.get(link)).status_code == 200, link
        assert "http" not in re.sub(r"<!doctype.*?>", "", page.text)
        assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_health_readiness_and_metrics(shop: Shop, rest: httpx.AsyncClient) -> None:
    await rest.get(CUSTOMERS)
    assert (await rest.get("/healthz")).json() == {"status": "alive"}
    ready = await rest.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    metrics = (await rest.get("/metrics")).text
    assert 'route="/api/v1/customers"' in metrics
    assert shop.id not in metrics
