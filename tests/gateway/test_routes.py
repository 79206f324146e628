"""Templates and routes, without a server."""

import pytest
from google.api.http_pb2 import HttpRule

from libs.contracts import ContractError, Method
from services.gateway.routes import Router, bindings
from services.gateway.templates import Template, TemplateError
from tests.gateway.shop import METHODS


def find(router: Router[str], path: str, verb: str = "GET") -> str | None:
    leaf = router.find(path.split("/")[1:])
    return None if leaf is None else leaf.targets.get(verb)


def test_templates() -> None:
    template = Template.parse("/v1/{thing.name=shelves/*/things/*}/{rest=**}")
    assert template.steps == ("v1", "shelves", "*", "things", "*", "**")
    assert template.values(["v1", "shelves", "a", "things", "b%20c", "d", "e"]) == [
        "shelves/a/things/b c",
        "d/e",
    ]
    verb = Template.parse("/v1/{id}:paint")
    assert (verb.verb, verb.values(["v1", "a:b:paint"])) == ("paint", ["a:b"])
    for wrong in ("v1", "/v1//x", "/v1/{", "/v1/{id", "/v1/**/x", "/v1/{a}b", "/v1/{a=b}/", "/"):
        with pytest.raises(TemplateError):
            Template.parse(wrong)


def test_a_literal_beats_a_variable_and_the_search_goes_back() -> None:
    router: Router[str] = Router()
    for text in ("/a/{x}", "/a/b", "/a/{x}/c", "/a/b/d", "/f/{p=**}", "/a/{x}:go", "/a/b:go", "/f/g"):
        router.add("GET", Template.parse(text), text)
    assert find(router, "/a/b") == "/a/b"
    assert find(router, "/a/z") == "/a/{x}"
    assert find(router, "/a/b/c") == "/a/{x}/c"
    assert find(router, "/a/b/d") == "/a/b/d"
    assert find(router, "/f/g") == "/f/g"
    assert find(router, "/f/g/h") == "/f/{p=**}"
    assert find(router, "/a/b:go") == "/a/b:go"
    assert find(router, "/a/z:go") == "/a/{x}:go"
    assert find(router, "/a/z:gone") == "/a/{x}"
    for path in ("/a", "/a/", "/a//c", "/f", "/f/", "/x"):
        assert find(router, path) is None, path


def test_equal_shapes_stop_the_start() -> None:
    router: Router[str] = Router()
    router.add("GET", Template.parse("/a/{id}"), "one")
    router.add("PUT", Template.parse("/a/{thing_id}"), "two")
    with pytest.raises(ContractError, match="another RPC has GET"):
        router.add("GET", Template.parse("/a/{other}"), "three")


def test_every_binding_is_found() -> None:
    found = [(binding.verb, binding.template.text) for binding in bindings(METHODS.values())]
    assert ("GET", "/api/v1/shelves/{where.shelf}/things/{id}") in found
    assert ("PUT", "/api/v1/things/{id}") in found
    hidden = METHODS["/shop.v1.ShopService/Hidden"]
    with pytest.raises(ContractError, match="without a path"):
        list(
            bindings(
                [Method(hidden.path, hidden.name, "shop", hidden.access, (HttpRule(),), hidden.descriptor)]
            )
        )
