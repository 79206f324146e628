"""Who may come in, and how often: tokens, rate limits, room at the services, CORS, the log of it."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from libs.ids import new_id
from services.gateway.limits import Limiter, Policy, address_of
from tests.gateway.conftest import Api
from tests.servers import Servers

THINGS = "/api/v1/things"


async def test_no_token_or_one_that_does_not_hold_is_401(api: Api) -> None:
    for value, error in (
        (None, False),
        ("Basic abc", True),
        ("Bearer", True),
        ("Bearer x.y.z", True),
        (f"Bearer {api.shop.token(new_id(), ttl_seconds=-60)}", True),
        (f"Bearer {api.shop.token(new_id(), audience='other')}", True),
    ):
        headers = {} if value is None else {"authorization": value}
        answer = httpx.Response(0)
        async with httpx.AsyncClient(base_url=api.url) as client:
            answer = await client.get(THINGS, headers=headers)
        assert (answer.status_code, answer.json()["error"]["status"]) == (401, "UNAUTHENTICATED"), value
        assert ("invalid_token" in answer.headers["www-authenticate"]) == error
    assert api.shop.servicer.requests == []


async def test_permissions_are_the_services_to_decide(api: Api) -> None:
    reader = {"authorization": f"Bearer {api.shop.token(api.tenant, 'reader')}"}
    assert (await api.client.get(THINGS, headers=reader)).status_code == 200
    answer = await api.client.post(THINGS, json={"name": "x"}, headers=reader)
    assert (answer.status_code, answer.json()["error"]["status"]) == (403, "PERMISSION_DENIED")


async def test_the_limit_of_a_client_and_its_headers(opens: Any) -> None:
    async with opens(rate_limit_client=3, rate_limit_tenant=5) as api:
        left = []
        for _ in range(3):
            answer = await api.client.get(THINGS)
            assert answer.headers["ratelimit-policy"] == '"tenant";q=5;w=60, "client";q=3;w=60'
            left.append(answer.headers["ratelimit"].split(";")[:2])
        assert left == [['"client"', "r=2"], ['"client"', "r=1"], ['"client"', "r=0"]]
        over = await api.client.get(THINGS)
        assert (over.status_code, over.json()["error"]["reason"]) == (429, "RATE_LIMITED")
        assert 1 <= int(over.headers["retry-after"]) <= 61
        assert over.json()["error"]["metadata"] == {"policy": "client", "limit": "3"}
        other = {"authorization": f"Bearer {api.shop.token(api.tenant, subject='other')}"}
        assert [(await api.client.get(THINGS, headers=other)).status_code for _ in range(3)] == [
            200,
            200,
            429,
        ]
        elsewhere = {"authorization": f"Bearer {api.shop.token(new_id())}"}
        assert (await api.client.get(THINGS, headers=elsewhere)).status_code == 200


async def test_failed_log_ins_are_limited_by_address(opens: Any) -> None:
    async with opens(rate_limit_address=2, trusted_proxies=1) as api:

        def tries(address: str, token: str) -> Any:
            return api.client.get(THINGS, headers={"authorization": token, "x-forwarded-for": address})

        wrong, right = "Bearer x", str(api.client.headers["authorization"])
        assert [(await tries("9.9.9.9", wrong)).status_code for _ in range(3)] == [401, 401, 429]
        assert (await tries("9.9.9.9", right)).status_code == 429
        assert (await tries("spoofed, 8.8.8.8", right)).status_code == 200


def test_addresses() -> None:
    assert address_of(("1.2.3.4", 5), b"6.6.6.6", 0) == "1.2.3.4"
    assert address_of(("1.2.3.4", 5), b"7.7.7.7, 6.6.6.6", 1) == "6.6.6.6"
    assert address_of(("1.2.3.4", 5), b"7.7.7.7, 6.6.6.6", 2) == "7.7.7.7"
    assert address_of(("2001:db8:1:2:3:4:5:6", 5), None, 0) == "2001:db8:1:2::"
    assert address_of(None, None, 0) == ""


async def test_two_processes_count_together_and_redis_may_go(servers: Servers) -> None:
    prefix, policy, key = f"t{new_id()}", Policy("tenant", 10), str(new_id())
    one, two = Limiter(servers.redis_url, prefix), Limiter(servers.redis_url, prefix)
    for limiter in (one, two):
        limiter.start()
    try:
        for _ in range(6):
            one.take([(policy, key)])
        async with asyncio.timeout(10):
            left = 10
            while left > 3:
                await asyncio.sleep(0.05)
                verdict = two.take([(policy, key)])
                left = 10 if verdict is None else verdict.remaining
    finally:
        await one.stop()
        await two.stop()
    alone = Limiter("redis://127.0.0.1:1/0", prefix)
    alone.start()
    try:
        verdicts = [alone.take([(policy, key)]) for _ in range(12)]
        assert [v.allowed for v in verdicts if v is not None] == [True] * 10 + [False] * 2
    finally:
        await alone.stop()


async def test_no_limits_no_headers(opens: Any) -> None:
    async with opens(rate_limit_client=0, rate_limit_tenant=0) as api:
        answer = await api.client.get(THINGS)
        assert "ratelimit" not in answer.headers


async def test_calls_wait_for_room_first_come_first_served(opens: Any) -> None:
    async with opens(calls=1, waiting=2) as api:
        servicer = api.shop.servicer
        servicer.waiting.clear()
        servicer.go.clear()
        first = asyncio.create_task(api.client.post("/api/v1/wait", json={"name": "long"}))
        await asyncio.wait_for(servicer.waiting.wait(), 5)
        late = await api.client.get(THINGS, headers={"x-request-timeout": "0.2"})
        assert late.status_code == 504
        second = [asyncio.create_task(api.client.get(THINGS)) for _ in range(3)]
        done, _ = await asyncio.wait(second, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        busy = [task.result() for task in done]
        assert [(answer.status_code, answer.json()["error"]["reason"]) for answer in busy] == [
            (503, "OVERLOADED")
        ]
        servicer.go.set()
        assert (await first).status_code == 200
        assert sorted([(await task).status_code for task in second]) == [200, 200, 503]
        assert (await api.client.get(THINGS)).status_code == 200


async def test_cors(opens: Any) -> None:
    async with opens(cors_origins=("https://shop.example",)) as api:
        ask = {"origin": "https://shop.example", "access-control-request-method": "PATCH"}
        preflight = await api.client.options("/api/v1/things/1", headers=ask)
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "https://shop.example"
        assert "PATCH" in preflight.headers["access-control-allow-methods"]
        assert "if-match" in preflight.headers["access-control-allow-headers"]
        real = await api.client.get(THINGS, headers={"origin": "https://shop.example"})
        assert "etag" in real.headers["access-control-expose-headers"]
        refused = await api.client.get("/api/v1/nothing", headers={"origin": "https://shop.example"})
        assert refused.headers["access-control-allow-origin"] == "https://shop.example"
        other = await api.client.get(THINGS, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
    assert other.headers["vary"].split(", ") == ["accept-encoding", "origin"]


async def test_the_log_tells_what_was_called_and_nothing_of_people(api: Api) -> None:
    person = "ann.sentinel@example.com"
    answer = await api.client.get(f"/api/v1/things/{person}?readMask=name", headers={"user-agent": person})
    await api.client.get(f"/api/v1/{person}?q={person}")
    lines = [json.loads(line) for line in api.logged().splitlines()]
    assert person not in api.logged()
    assert "127.0.0.1" not in api.logged()
    line = next(line for line in lines if line["request_id"] == answer.headers["x-request-id"])
    assert line.keys() == {
        "time", "level", "logger", "method", "route", "status", "duration_ms", "tenant", "request_id",
    }  # fmt: skip
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/things/{id}", 404)
    assert line["tenant"] == str(api.tenant)
    assert lines[-1]["route"] == "-"
    metrics = (await api.client.get("/metrics")).text
    assert 'regulars_http_seconds_count{method="GET",route="/api/v1/things/{id}",status="404"}' in metrics
    assert person not in metrics


async def test_readiness(api: Api) -> None:
    ready = await api.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "services": {"shop": "serving"}})
    assert (await api.client.get("/healthz")).json() == {"status": "alive"}
    assert (await api.client.post("/healthz")).status_code == 404


@pytest.mark.parametrize("public", [True, False])
async def test_metrics_may_be_private(opens: Any, public: bool) -> None:
    async with opens(public_metrics=public) as api:
        assert (await api.client.get("/metrics")).status_code == (200 if public else 404)
