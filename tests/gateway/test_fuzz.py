"""Whatever a client sends, it is answered, and never by a 5xx."""

import json
import random
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.problems import InvalidArgument
from services.gateway.codec.faults import Faults
from services.gateway.query import QueryReader, parameters
from services.gateway.requests import Raw, RequestReader
from services.gateway.routes import bindings
from tests.gateway.conftest import Api
from tests.gateway.shop import METHODS, pb

NAMES = [field.json_name for field in pb.Kinds.DESCRIPTOR.fields]
ODD: list[Any] = [
    None, True, 0, -1, 1.5, 1e308, 10**30, 2**63, "", "a", "\0", "\ud800", "NaN", "-0", "1e5", "é" * 10, [], {},
    [None], [[]], {"": None}, {"value": 1}, "9999-12-31T23:59:59.999999999Z", "0001-01-01T00:00:00Z", "1s", "RED",
]  # fmt: skip
READERS = [RequestReader(binding, lambda _: False) for binding in bindings(METHODS.values())]
WILD = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
WILD_JSON: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([value for value in ODD if not isinstance(value, list | dict)]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "x", ""]), inner, max_size=4)
    ),
    max_leaves=12,
)


@WILD
@given(WILD_JSON, st.binary(max_size=40), st.sampled_from(READERS))
def test_reading_gives_a_message_or_names_what_is_wrong(
    value: Any, query: bytes, reader: RequestReader
) -> None:
    segments = ["x"] * len(reader.binding.template.steps)
    if reader.binding.template.verb:
        segments[-1] += ":" + reader.binding.template.verb
    body = json.dumps(value).encode()
    raw = Raw(segments, query, {}, body if reader.takes_body else None)
    read = outcome(reader, raw)
    if isinstance(read, InvalidArgument):
        assert read.violations or read.reason in {"MALFORMED_JSON", "MALFORMED_PATH"}
    else:
        assert type(read).FromString(read.SerializeToString()) == read


def outcome(reader: RequestReader, raw: Raw) -> Any:
    """The message, or the refusal."""
    try:
        return reader.read(raw)
    except InvalidArgument as refused:
        return refused


@WILD
@given(st.binary(max_size=60))
def test_any_query_string_is_read_or_refused(query: bytes) -> None:
    reader = QueryReader(parameters(pb.ListThingsRequest.DESCRIPTOR, {}, lambda _: False))
    faults = Faults()
    reader.read(query, pb.ListThingsRequest(), faults)
    json.dumps([violation.field for violation in faults.violations]).encode()


async def test_the_whole_way(api: Api) -> None:
    chance = random.Random(20261121)
    seen: dict[int, int] = {}
    for _ in range(250):
        body = {chance.choice(NAMES): chance.choice(ODD) for _ in range(chance.randint(1, 2))}
        content = json.dumps(body).encode()
        if chance.random() < 0.2:
            content = content[: chance.randrange(len(content))] + bytes([chance.randrange(256)])
        headers = {"content-type": "application/json"}
        answer = await api.client.post("/api/v1/echo", content=content, headers=headers)
        assert answer.status_code in {200, 400}, (content, answer.text)
        answer.json()
        path = quote("".join(chr(chance.randrange(1, 0x2FFF)) for _ in range(4)), safe="")
        name = chance.choice(["pageSize", "createdAfter", "colors", "place.row", "readMask", "orderBy", "x"])
        asked = await api.client.get(f"/api/v1/things?{name}={path}")
        assert asked.status_code in {200, 400}, asked.text
        found = await api.client.get(f"/api/v1/things/{path}")
        assert found.status_code in {400, 404}, found.text
        seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
    assert min(seen[200], seen[400]) > 5, seen
