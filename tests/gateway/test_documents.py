"""The OpenAPI document and its page."""

import json
import re
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from libs import contracts
from services.gateway.openapi.document import describe
from services.gateway.requests import RequestReader
from services.gateway.routes import bindings
from tests.gateway.conftest import Api
from tests.gateway.shop import COMMENTS, METHODS


def shop_document() -> Any:
    return json.loads(json.dumps(describe(METHODS.values(), COMMENTS)))


def test_the_document_is_valid_and_has_every_binding() -> None:
    document = shop_document()
    OpenAPIV31SpecValidator(document).validate()
    operations = [
        operation["operationId"] for path in document["paths"].values() for operation in path.values()
    ]
    assert len(set(operations)) == len(operations) == len(list(bindings(METHODS.values())))
    assert "/api/v1/things/{id}:paint" in document["paths"]
    assert "/api/v1/files/{path}" in document["paths"]


def test_operations_say_what_the_protos_say() -> None:
    paths = shop_document()["paths"]
    create = paths["/api/v1/things"]["post"]
    assert (create["operationId"], create["tags"], create["x-permission"]) == (
        "CreateThing",
        ["Shop"],
        "things.write",
    )
    assert create["summary"] == "Creates a thing"
    assert "`pageToken`" in create["description"]
    assert create["requestBody"]["required"] is True
    assert {"201", "400", "429", "default"} <= create["responses"].keys()
    assert {"$ref": "#/components/parameters/IdempotencyKey"} in create["parameters"]
    assert {"$ref": "#/components/parameters/IfMatch"} in paths["/api/v1/things/{id}"]["patch"]["parameters"]
    assert "application/merge-patch+json" in paths["/api/v1/things/{id}"]["patch"]["requestBody"]["content"]
    listed = {p["name"]: p for p in paths["/api/v1/things"]["get"]["parameters"] if "name" in p}
    assert listed["pageSize"]["schema"] == {
        "type": "integer",
        "format": "int32",
        "minimum": 0,
        "maximum": 100,
    }
    assert listed["place.shelf"]["in"] == "query"
    assert paths["/api/v1/shelves/{where.shelf}/things/{id}"]["get"]["parameters"][0]["name"] == "where.shelf"
    assert "204" in paths["/api/v1/things/{id}"]["delete"]["responses"]
    assert "text/event-stream" in paths["/api/v1/numbers"]["get"]["responses"]["200"]["content"]


def test_schemas_have_the_rules() -> None:
    schemas = shop_document()["components"]["schemas"]
    thing = schemas["Thing"]["properties"]
    assert thing["name"] | {"description": 0} == {
        "type": "string",
        "minLength": 1,
        "maxLength": 20,
        "description": 0,
    }
    assert thing["priceMinor"]["description"] == "(≥ 0)"
    assert thing["tags"]["maxItems"] == 3
    assert [name for name in thing if thing[name].get("readOnly")] == [
        "id",
        "createdAt",
        "etag",
        "maskedFields",
    ]
    assert schemas["ThingColor"]["enum"] == ["RED", "BLUE", "THING_COLOR_3D"]
    assert "- `RED`: As blood." in schemas["ThingColor"]["description"]
    assert schemas["CreateThingRequest"]["required"] == ["thing"] if "CreateThingRequest" in schemas else True
    assert thing["part"]["$ref"] == "#/components/schemas/Thing"
    assert schemas["Kinds"]["properties"]["longs"]["additionalProperties"]["format"] == "int64"


def test_examples_are_requests_that_are_read() -> None:
    from google.protobuf.message_factory import GetMessageClass

    from services.gateway.codec.decode import decoder_of
    from services.gateway.codec.faults import Faults

    for methods, comments in ((METHODS, COMMENTS), (contracts.methods(), contracts.comments())):
        document = describe(methods.values(), comments)
        bodies = {
            operation["operationId"]: operation["requestBody"]["content"]["application/json"].get("example")
            for path in document["paths"].values()
            for operation in path.values()
            if "application/json" in operation.get("requestBody", {}).get("content", {})
        }
        for binding in bindings(methods.values()):
            example = bodies.get(binding.method.name)
            if example is None or not binding.body:
                continue
            target = binding.method.input
            if binding.body != "*":
                inner = target.fields_by_name[binding.body].message_type
                assert inner is not None
                target = inner
            faults = Faults()
            decoder_of(target).fill(GetMessageClass(target)(), example, "", faults)
            assert not faults, (binding.method.path, faults.violations)


def test_the_real_contracts_make_a_valid_document_and_unambiguous_routes() -> None:
    methods = contracts.methods()
    document = json.loads(json.dumps(describe(methods.values(), contracts.comments())))
    OpenAPIV31SpecValidator(document).validate()
    assert "/api/v1/customers/{id}" in document["paths"]
    undescribed = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, inner in schema.get("properties", {}).items()
        if name != "Error" and not inner.get("description")
    ]
    assert undescribed == []
    for binding in bindings(methods.values()):
        RequestReader(binding, lambda _: False)


async def test_the_page_and_its_assets_come_from_here(api: Api) -> None:
    page = await api.client.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    sources = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert all(source.startswith(("/", "data:")) for source in sources)
    for source in (source for source in sources if source.startswith("/")):
        asset = await api.client.get(source)
        assert asset.status_code == 200
        known = {"if-none-match": asset.headers["etag"]}
        assert (await api.client.get(source, headers=known)).status_code == 304
    document = await api.client.get("/openapi.json")
    assert document.json()["openapi"].startswith("3.1")
    plain = await api.client.get("/openapi.json", headers={"accept-encoding": "identity"})
    assert plain.json() == document.json()
