"""One call through the gateway: status, headers and body of every outcome."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.gateway.conftest import Api
from tests.gateway.shop import SECRET, shop_server

THING = {"name": "lamp", "priceMinor": "1250", "color": "RED"}


async def created(api: Api, **fields: Any) -> Any:
    answer = await api.client.post("/api/v1/things", json=THING | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_create_answers_201_with_location_and_etag(api: Api) -> None:
    answer = await api.client.post("/api/v1/things", json=THING)
    thing = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/v1/things/{thing['id']}"
    assert answer.headers["etag"] == '"v1"'
    assert thing["priceMinor"] == "1250"
    assert thing["color"] == "RED"
    assert thing["createdAt"] == "2026-01-31T12:00:00.123456Z"
    assert thing["tags"] == []
    assert (await api.client.get(answer.headers["location"])).json() == thing


async def test_a_preview_creates_nothing_and_answers_200(api: Api) -> None:
    answer = await api.client.post("/api/v1/things?validateOnly=true", json=THING)
    assert answer.status_code == 200
    assert "location" not in answer.headers


async def test_delete_answers_204_without_body(api: Api) -> None:
    thing = await created(api)
    answer = await api.client.delete(f"/api/v1/things/{thing['id']}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert "content-length" not in answer.headers


async def test_get_with_a_known_etag_answers_304(api: Api) -> None:
    thing = await created(api)
    path = f"/api/v1/things/{thing['id']}"
    for known in ('"v1"', 'W/"v1"', '"v0", "v1"', "*"):
        answer = await api.client.get(path, headers={"if-none-match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == '"v1"'
    assert (await api.client.get(path, headers={"if-none-match": '"v0"'})).status_code == 200


async def test_if_match_fills_the_etag_and_a_stale_one_is_412(api: Api) -> None:
    thing = await created(api)
    path = f"/api/v1/things/{thing['id']}"
    good = await api.client.patch(path, json={"name": "x"}, headers={"if-match": '"v1"'})
    assert good.status_code == 200
    assert api.shop.servicer.requests[-1].etag == "v1"
    stale = await api.client.patch(path, json={"name": "x"}, headers={"if-match": '"v0"'})
    assert (stale.status_code, stale.json()["error"]["reason"]) == (412, "ETAG_MISMATCH")
    assert stale.json()["error"]["status"] == "ABORTED"
    weak = await api.client.patch(path, json={"name": "x"}, headers={"if-match": 'W/"v1"'})
    assert weak.status_code == 412
    anything = await api.client.patch(path, json={"name": "x"}, headers={"if-match": "*"})
    assert anything.status_code == 200
    assert api.shop.servicer.requests[-1].etag == ""


async def test_a_precondition_that_cannot_be_kept_is_refused(api: Api) -> None:
    answer = await api.client.post("/api/v1/things", json=THING, headers={"if-none-match": "*"})
    assert answer.json()["error"]["violations"][0]["reason"] == "PRECONDITION_NOT_SUPPORTED"
    answer = await api.client.post("/api/v1/things", json=THING, headers={"if-match": '"v1"'})
    assert answer.json()["error"]["violations"][0]["field"] == "If-Match"


async def test_sending_back_what_was_read_means_that_version(api: Api) -> None:
    thing = await created(api)
    path = f"/api/v1/things/{thing['id']}"
    assert (await api.client.put(path, json=thing)).status_code == 200
    heard = api.shop.servicer.requests[-1]
    assert (heard.etag, list(heard.update_mask.paths)) == ("v1", ["*"])
    assert (await api.client.put(path, json=thing | {"etag": "v0"})).status_code == 412


async def test_unknown_path_method_and_trailing_slash(api: Api) -> None:
    missing = await api.client.get("/api/v1/nothing")
    assert (missing.status_code, missing.json()["error"]["reason"]) == (404, "NO_SUCH_PATH")
    assert (await api.client.get("/")).status_code == 404
    assert (await api.client.get("/api//v1/things")).status_code == 404
    wrong = await api.client.post("/api/v1/things/1")
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"
    slash = await api.client.get("/api/v1/things/?pageSize=1")
    assert (slash.status_code, slash.headers["location"]) == (308, "/api/v1/things?pageSize=1")
    assert (await api.client.get("/api/v1/hidden/")).status_code == 404


async def test_head_and_options(api: Api) -> None:
    thing = await created(api)
    path = f"/api/v1/things/{thing['id']}"
    full, head = await api.client.get(path), await api.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]
    assert head.headers["etag"] == '"v1"'
    options = await api.client.options(path)
    assert (options.status_code, options.headers["allow"][:6]) == (204, "DELETE")


async def test_literal_paths_beat_variables_and_verbs_are_found(api: Api) -> None:
    assert (await api.client.get("/api/v1/things/count")).json() == {
        "byColor": {"RED": "1"},
        "total": str(1 << 40),
    }
    painted = await api.client.post("/api/v1/things/a%2Fb:paint", json={"color": "BLUE"})
    assert painted.json() | {"tags": 0} == painted.json() | {"id": "a/b", "color": "BLUE", "tags": 0}
    assert painted.status_code == 200


async def test_path_and_body_must_agree(api: Api) -> None:
    same = await api.client.post("/api/v1/things/7:paint", json={"id": "7", "color": "BLUE"})
    assert same.status_code == 200
    other = await api.client.post("/api/v1/things/7:paint", json={"id": "8"})
    assert other.json()["error"]["violations"][0]["reason"] == "PATH_MISMATCH"


async def test_nested_variables_and_escapes_in_the_path(api: Api) -> None:
    await api.client.get("/api/v1/shelves/top%20%C3%A9/things/x%2Fy?where.row=3")
    heard = api.shop.servicer.requests[-1]
    assert (heard.where.shelf, heard.where.row, heard.id) == ("top é", 3, "x/y")
    broken = await api.client.get("/api/v1/things/%ff")
    assert (broken.status_code, broken.json()["error"]["reason"]) == (400, "MALFORMED_PATH")


async def test_media_types(api: Api) -> None:
    url = "/api/v1/things"
    form = await api.client.post(url, data={"name": "lamp"})
    assert (form.status_code, form.json()["error"]["reason"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (await api.client.post(url, content=b"{}")).status_code == 415
    latin = {"content-type": "application/json; charset=latin-1"}
    assert (await api.client.post(url, content=b"{}", headers=latin)).status_code == 415
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    assert (await api.client.post(url, content=b"{}", headers=packed)).status_code == 415
    merge = {"content-type": "application/merge-patch+json"}
    assert (await api.client.post(url, content=b"{}", headers=merge)).status_code == 415
    thing = await created(api)
    path = f"{url}/{thing['id']}"
    assert (await api.client.patch(path, content=b'{"name":"y"}', headers=merge)).status_code == 200
    utf8 = {"content-type": 'Application/JSON; charset="UTF-8"'}
    assert (await api.client.patch(path, content=b'{"name":"y"}', headers=utf8)).status_code == 200
    for accept in ("text/html", "application/xml;q=1", "application/json;q=0, */*;q=0"):
        refused = await api.client.get(path, headers={"accept": accept})
        assert (refused.status_code, refused.headers["content-type"]) == (406, "application/json")
    for accept in ("application/json", "text/html, */*;q=0.1", "application/*"):
        assert (await api.client.get(path, headers={"accept": accept})).status_code == 200


async def test_bodies_where_none_belong_and_bodies_that_are_too_large(api: Api) -> None:
    answer = await api.client.request("DELETE", "/api/v1/things/1", json={"a": 1})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "UNEXPECTED_BODY")
    big = await api.client.post("/api/v1/echo", json={"text": "x" * (1 << 20)})
    assert (big.status_code, big.json()["error"]["metadata"]) == (413, {"limit_bytes": str(1 << 20)})

    async def parts() -> Any:
        for _ in range(100):
            yield b" " * (1 << 14)

    chunked = await api.client.post(
        "/api/v1/echo", content=parts(), headers={"content-type": "application/json"}
    )
    assert chunked.status_code == 413
    assert (await api.client.post("/api/v1/wait", json={"name": "no"})).status_code == 200
    assert (await api.client.post("/api/v1/echo")).status_code == 200


async def test_every_code_has_its_status_and_5xx_tell_nothing(api: Api) -> None:
    expected = {
        "INVALID_ARGUMENT": 400,
        "FAILED_PRECONDITION": 400,
        "NOT_FOUND": 404,
        "ALREADY_EXISTS": 409,
        "PERMISSION_DENIED": 403,
        "UNAUTHENTICATED": 401,
        "ABORTED": 409,
        "RESOURCE_EXHAUSTED": 429,
        "UNIMPLEMENTED": 501,
        "UNAVAILABLE": 503,
        "DEADLINE_EXCEEDED": 504,
        "INTERNAL": 500,
    }
    for code, status in expected.items():
        body = {"code": code, "message": f"Not {SECRET}", "fields": ["thing.price_minor"], "retryAfter": 1.5}
        answer = await api.client.post("/api/v1/fail", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["status"]) == (status, status, code)
        assert error["requestId"] == answer.headers["x-request-id"]
        if status >= 500:
            assert SECRET not in answer.text
            assert (error["metadata"], error["violations"]) == ({}, [])
        else:
            assert error["message"] == f"Not {SECRET}"
            assert error["metadata"]["fact"] == "as it is"
        if status in {409, 429, 503}:
            assert answer.headers["retry-after"] == "2"
    bug = await api.client.post("/api/v1/fail", json={"code": "BUG"})
    assert (bug.status_code, bug.json()["error"]["reason"]) == (500, "INTERNAL")
    assert SECRET not in bug.text


async def test_violations_have_json_names(api: Api) -> None:
    body = {"code": "INVALID_ARGUMENT", "fields": ["retry_after", "fields[0].deep_down", "nothing_known"]}
    answer = await api.client.post("/api/v1/fail", json=body)
    named = [violation["field"] for violation in answer.json()["error"]["violations"]]
    assert named == ["retryAfter", "fields[0].deep_down", "nothing_known"]


async def test_metadata_goes_along(api: Api) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"x-request-id": "checkout-17", "traceparent": trace, "x-regulars-purpose": "support case 4"}
    read = await api.client.get("/api/v1/things", headers=headers)
    assert read.headers["x-request-id"] == "checkout-17"
    assert api.shop.servicer.metadata[-1]["x-request-id"] == "checkout-17"
    answer = await api.client.post("/api/v1/wait", json={"name": "no"}, headers=headers)
    sent = answer.json()["metadata"]
    assert "x-request-id" not in sent
    assert sent["authorization"] == api.client.headers["authorization"]
    assert sent["traceparent"][:36] == trace[:36]
    assert sent["x-regulars-purpose"] == "support case 4"
    assert 9 < answer.json()["secondsGiven"] < 10.5
    named = await api.client.post("/api/v1/wait", json={"name": "no"})
    trace = named.json()["metadata"]["traceparent"].split("-")[1]
    assert trace == named.headers["x-request-id"].replace("-", "")
    own = await api.client.post("/api/v1/wait", json={"name": "no"}, headers={"x-request-id": SECRET})
    assert own.headers["x-request-id"] != SECRET
    bad = await api.client.post("/api/v1/wait", headers=[(b"x-regulars-purpose", b"\xe9")])
    assert bad.json()["error"]["reason"] == "MALFORMED_HEADER"


async def test_idempotency_key(api: Api) -> None:
    await api.client.post("/api/v1/things", json=THING, headers={"idempotency-key": '"order-1"'})
    assert api.shop.servicer.requests[-1].request_id == "order-1"
    answer = await api.client.post("/api/v1/wait", json={"name": "no"}, headers={"idempotency-key": "k2"})
    assert answer.json()["metadata"]["x-request-id"] == "k2"
    both = await api.client.post("/api/v1/things?requestId=a", json=THING, headers={"idempotency-key": "b"})
    assert both.json()["error"]["violations"][0]["reason"] == "REQUEST_ID_DIFFERS"
    for key in ("", "x" * 101, "é"):
        bad = await api.client.post(
            "/api/v1/things", json=THING, headers=[(b"idempotency-key", key.encode("latin-1"))]
        )
        assert bad.json()["error"]["reason"] == "MALFORMED_HEADER", key


async def test_deadlines(api: Api) -> None:
    answer = await api.client.post(
        "/api/v1/wait", json={"name": "long"}, headers={"x-request-timeout": "0.3s"}
    )
    assert (answer.status_code, answer.json()["error"]["status"]) == (504, "DEADLINE_EXCEEDED")
    await asyncio.wait_for(api.shop.servicer.cancelled.wait(), 5)
    long = await api.client.post("/api/v1/wait", json={"name": "no"}, headers={"x-request-timeout": "100000"})
    assert 50 < long.json()["secondsGiven"] < 60.5
    bad = await api.client.post("/api/v1/wait", headers={"x-request-timeout": "soon"})
    assert bad.status_code == 400


async def test_a_client_that_goes_away_cancels_its_call(api: Api) -> None:
    call = asyncio.create_task(api.client.post("/api/v1/wait", json={"name": "long"}))
    await asyncio.wait_for(api.shop.servicer.waiting.wait(), 5)
    call.cancel()
    await asyncio.wait_for(api.shop.servicer.cancelled.wait(), 5)


async def test_read_masks_make_answers_sparse(api: Api) -> None:
    thing = await created(api)
    answer = await api.client.get(f"/api/v1/things/{thing['id']}?readMask=name,place.shelf,createdAt")
    assert list(api.shop.servicer.requests[-1].read_mask.paths) == ["name", "place.shelf", "created_at"]
    assert "tags" not in answer.json()
    page = (await api.client.get("/api/v1/things?readMask=name")).json()
    assert "tags" not in page["things"][0]
    assert page["totalSize"] == str(len(page["things"]))
    wrong = await api.client.get(f"/api/v1/things/{thing['id']}?readMask=nmae")
    assert wrong.json()["error"]["violations"][0]["description"].endswith('Did you mean "name"?')


async def test_security_headers_are_on_every_answer(api: Api) -> None:
    for answer in (
        await api.client.get("/api/v1/things"),
        await api.client.get("/api/v1/nothing"),
        await api.client.get("/docs"),
        await api.client.get("/healthz"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "content-security-policy" in answer.headers
        assert "server" not in answer.headers
    assert (await api.client.get("/api/v1/things")).headers["cache-control"] == "no-store"


async def test_an_upstream_that_is_away_is_503(opens: Any) -> None:
    async with opens(addresses={"shop": "127.0.0.1:1"}) as api:
        answer: httpx.Response = await api.client.get("/api/v1/things")
        assert (answer.status_code, answer.json()["error"]["status"]) == (503, "UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1
        ready = await api.client.get("/readyz")
        assert (ready.status_code, ready.json()["services"]) == (503, {"shop": "unavailable"})
        assert (await api.client.get("/healthz")).status_code == 200


async def test_a_service_that_comes_back_is_found_again(opens: Any, tmp_path: Path) -> None:
    async with shop_server(tmp_path) as shop:
        port = shop.server.port
        async with opens(home=tmp_path, addresses={"shop": shop.address}) as api:
            headers = {"authorization": f"Bearer {shop.token(api.tenant)}"}
            assert (await api.client.get("/api/v1/things", headers=headers)).status_code == 200
            await shop.server.stop()
            assert (await api.client.get("/api/v1/things", headers=headers)).status_code == 503
            async with shop_server(tmp_path, port):
                status = 0
                async with asyncio.timeout(10):
                    while status != 200:
                        status = (await api.client.get("/api/v1/things", headers=headers)).status_code
