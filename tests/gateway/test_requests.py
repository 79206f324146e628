"""What becomes of path, query and body: violations all at once, masks, query parameters."""

from typing import Any

from tests.gateway.conftest import Api

PATCHED = "/api/v1/things/t1"


def violations(answer: Any) -> dict[str, str]:
    assert answer.status_code == 400, answer.text
    return {v["field"]: v["reason"] for v in answer.json()["error"]["violations"]}


async def patched(api: Api, body: Any, query: str = "", verb: str = "PATCH") -> Any:
    """The message that the service got; it knows no such thing, which is no matter here."""
    answer = await api.client.request(verb, PATCHED + query, json=body)
    assert answer.status_code in {200, 404}, answer.text
    return api.shop.servicer.requests[-1]


async def test_the_mask_is_what_the_body_names(api: Api) -> None:
    heard = await patched(
        api, {"name": "x", "price_minor": None, "tags": [], "place": {"shelf": None, "row": 2}}
    )
    assert sorted(heard.update_mask.paths) == ["name", "place.row", "place.shelf", "price_minor", "tags"]
    assert heard.id == "t1"
    assert not heard.thing.HasField("price_minor")
    assert (heard.thing.place.row, heard.thing.place.HasField("shelf")) == (2, False)


async def test_entries_of_maps_are_named_one_by_one(api: Api) -> None:
    body = {"attributes": {"size": "L", "gone": None}, "labels": {"a": "1", "b": None}, "part": None}
    heard = await patched(api, body)
    assert sorted(heard.update_mask.paths) == [
        "attributes.gone", "attributes.size", "labels.a", "labels.b", "part",
    ]  # fmt: skip
    assert dict(heard.thing.attributes) == {"size": "L"}
    assert dict(heard.thing.labels) == {"a": "1"}
    nothing = await patched(api, {"attributes": {}, "place": {}})
    assert list(nothing.update_mask.paths) == []


async def test_a_given_mask_stays_and_output_only_fields_do_not_count(api: Api) -> None:
    heard = await patched(api, {"name": "x"}, "?updateMask=name,priceMinor,attributes.size")
    assert list(heard.update_mask.paths) == ["name", "price_minor", "attributes.size"]
    heard = await patched(
        api, {"id": "other", "createdAt": "2026-01-01T00:00:00Z", "maskedFields": [], "name": "x"}
    )
    assert list(heard.update_mask.paths) == ["name"]
    answer = await api.client.patch(PATCHED + "?updateMask=nmae", json={})
    assert violations(answer) == {"updateMask": "UNKNOWN_FIELD"}


async def test_put_replaces_everything(api: Api) -> None:
    heard = await patched(api, {"name": "x"}, verb="PUT")
    assert list(heard.update_mask.paths) == ["*"]
    answer = await api.client.put(PATCHED + "?updateMask=name", json={"name": "x"})
    assert violations(answer) == {"updateMask": "MASK_WITH_PUT"}


async def test_faults_of_text_and_rules_come_together(api: Api) -> None:
    body = {
        "name": "x" * 21,
        "priceMinor": "-1",
        "colour": "RED",
        "tags": ["a", 1, "b", "c", "d"],
        "sold": "yes",
    }
    found = violations(await api.client.post("/api/v1/things", json=body))
    assert found == {
        "thing.colour": "UNKNOWN_FIELD",
        "thing.tags[1]": "WRONG_TYPE",
        "thing.sold": "WRONG_TYPE",
        "thing.name": "STRING_MAX_LEN",
        "thing.priceMinor": "INT64_GTE",
    }
    assert violations(await api.client.post("/api/v1/things", json={"name": ""})) == {
        "thing.name": "STRING_MIN_LEN"
    }


async def test_query_parameters(api: Api) -> None:
    query = (
        "pageSize=7&colors=RED&colors=blue&place.shelf=a%2Bb+c&sold=false&createdAfter=2026-01-31T12:00:00%2B01:00"
        "&readMask=things.name&price_from=12&orderBy=createdAt+desc,name&name=%C3%A9"
    )
    # The mask of a list names fields of its elements.
    refused = await api.client.get(f"/api/v1/things?{query}")
    assert violations(refused) == {"readMask": "UNKNOWN_FIELD"}
    answer = await api.client.get(f"/api/v1/things?{query.replace('things.name', 'name,priceMinor')}")
    assert answer.status_code == 200
    heard = api.shop.servicer.requests[-1]
    assert (heard.page_size, list(heard.colors), heard.place.shelf) == (7, [1, 2], "a+b c")
    assert (heard.sold, heard.HasField("sold"), heard.price_from.value) == (False, True, 12)
    assert heard.created_after.ToJsonString() == "2026-01-31T11:00:00Z"
    assert list(heard.read_mask.paths) == ["name", "price_minor"]
    assert (heard.order_by, heard.name) == ("created_at desc, name", "é")


async def test_wrong_query_parameters_are_named_all_at_once(api: Api) -> None:
    query = "pagesize=1&pageSize=x&sold=1&colors=RED&colors=GREEN&name=a&code=b&name=c&%ff=1&place=1&pageToken=%ff"
    found = violations(await api.client.get(f"/api/v1/things?{query}"))
    assert found == {
        "pagesize": "UNKNOWN_QUERY_PARAMETER",
        "pageSize": "WRONG_TYPE",
        "sold": "WRONG_TYPE",
        "colors[1]": "UNKNOWN_VALUE",
        "code": "ONEOF_CONFLICT",
        "name": "DUPLICATE_FIELD",
        "%ff": "MALFORMED_TEXT",
        "place": "UNKNOWN_QUERY_PARAMETER",
        "pageToken": "MALFORMED_TEXT",
    }
    answer = await api.client.get("/api/v1/things?pagesize=1")
    text = answer.json()["error"]["violations"][0]["description"]
    assert text == 'There is no query parameter "pagesize". Did you mean "pageSize"?'
    assert violations(await api.client.get("/api/v1/things?pageSize=101")) == {"pageSize": "INT32_GTE_LTE"}
    assert violations(await api.client.post("/api/v1/echo?text=a", json={})) == {
        "text": "UNKNOWN_QUERY_PARAMETER"
    }


async def test_broken_bodies(api: Api) -> None:
    headers = {"content-type": "application/json"}
    for body in (b"{", b"\xff\xfe", b'{"name": NaN}', b"[" * 5000):
        answer = await api.client.post("/api/v1/things", content=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "MALFORMED_JSON")
    answer = await api.client.post("/api/v1/things", content=b'{"name":"a","name":"b"}', headers=headers)
    assert violations(answer) == {"thing.name": "DUPLICATE_FIELD"}
    assert violations(await api.client.post("/api/v1/things", content=b"[]", headers=headers)) == {
        "thing": "WRONG_TYPE"
    }
    assert "thing" in violations(await api.client.post("/api/v1/things"))
    strange = await api.client.post("/api/v1/things", content=b'{"\\ud800": 1, "name": "x"}', headers=headers)
    assert violations(strange) == {"thing.?": "UNKNOWN_FIELD"}
