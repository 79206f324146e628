"""JSON to messages and back, beside protobuf's own JSON where both mean the same."""

import json
import math
from typing import Any

import orjson
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from libs.problems import InvalidArgument
from services.gateway.codec.decode import decoder_of
from services.gateway.codec.encode import encoder_of, to_bytes
from services.gateway.codec.faults import Faults
from services.gateway.codec.names import enum_names, json_path, proto_path
from services.gateway.codec.text import parse
from tests.gateway.shop import pb

KINDS = pb.Kinds.DESCRIPTOR


def encoded(message: Any, *, sparse: bool = False) -> Any:
    return orjson.loads(to_bytes(encoder_of(message.DESCRIPTOR, sparse=sparse)(message)))


def decoded(text: str | bytes, kind: Any = pb.Kinds) -> Any:
    message, faults = kind(), Faults()
    decoder_of(kind.DESCRIPTOR).fill(
        message, parse(text.encode() if isinstance(text, str) else text), "", faults
    )
    if faults:
        raise faults.problem()
    return message


def refused(text: str | bytes) -> dict[str, str]:
    """The reasons by field."""
    with pytest.raises(InvalidArgument) as caught:
        decoded(text)
    return {violation.field: violation.reason for violation in caught.value.violations}


TEXT = st.text(max_size=8)
INT32, INT64 = st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 63), (1 << 63) - 1)
UINT32, UINT64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
# Without -0.0, which is as good as empty.
DOUBLE = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
COLOR, LEVEL = st.sampled_from([1, 2, 3]), st.sampled_from([0, 1])
INSTANT: st.SearchStrategy[Any] = st.builds(
    dict,
    seconds=st.integers(-62135596800, 253402300799),
    nanos=st.integers(0, 999_999).map(lambda n: n * 1000),
)
SPAN = st.integers(-(10**14), 10**14).map(
    lambda n: {
        "seconds": int(math.copysign(abs(n) // 10**6, n)),
        "nanos": int(math.copysign(abs(n) % 10**6 * 1000, n)),
    }
)
PLACE = st.fixed_dictionaries({}, optional={"shelf": TEXT, "row": INT32})
PLAIN_JSON = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers(-(1 << 53), 1 << 53) | DOUBLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "flag": st.booleans(), "i32": INT32, "s32": INT32, "sf32": INT32, "u32": UINT32, "f32": UINT32,
    "i64": INT64, "s64": INT64, "sf64": INT64, "u64": UINT64, "f64": UINT64, "real": FLOAT, "precise": DOUBLE,
    "text": TEXT, "blob": st.binary(max_size=8), "color": COLOR, "level": LEVEL, "place": PLACE,
    "maybe_flag": st.booleans(), "maybe_i32": INT32, "maybe_i64": INT64, "maybe_precise": DOUBLE,
    "maybe_text": TEXT, "maybe_blob": st.binary(max_size=8), "maybe_color": COLOR, "maybe_level": LEVEL,
    "numbers": st.lists(INT64, max_size=3), "texts": st.lists(TEXT, max_size=3),
    "colors": st.lists(COLOR, max_size=3), "places": st.lists(PLACE, max_size=3),
    "instants": st.lists(INSTANT, max_size=3), "doubles": st.lists(DOUBLE, max_size=3),
    "by_text": st.dictionaries(TEXT, TEXT, max_size=3), "by_number": st.dictionaries(INT64, INT32, max_size=3),
    "by_flag": st.dictionaries(st.booleans(), TEXT), "places_by_name": st.dictionaries(TEXT, PLACE, max_size=2),
    "longs": st.dictionaries(TEXT, INT64, max_size=2), "instant": INSTANT, "span": SPAN,
    "wrapped_long": INT64.map(lambda n: {"value": n}), "wrapped_text": TEXT.map(lambda t: {"value": t}),
    "wrapped_flag": st.booleans().map(lambda f: {"value": f}), "wrapped_double": DOUBLE.map(lambda d: {"value": d}),
    "wrapped_blob": st.binary(max_size=4).map(lambda b: {"value": b}),
}  # fmt: skip
CHOICE: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.builds(dict, chosen_text=TEXT),
    st.builds(dict, chosen_number=INT32),
    st.builds(dict, chosen_place=PLACE),
)


@st.composite
def kinds(draw: Any, depth: int = 2) -> Any:
    made = draw(st.fixed_dictionaries({}, optional=FIELDS)) | draw(CHOICE)
    message = pb.Kinds(**made)
    for name in ("free", "any_value", "any_list"):
        if draw(st.booleans()):
            shape = {"free": st.dictionaries(TEXT, PLAIN_JSON, max_size=3), "any_value": PLAIN_JSON}
            value = draw(shape.get(name, st.lists(PLAIN_JSON, max_size=3)))
            json_format.ParseDict(value, getattr(message, name))
            getattr(message, name).SetInParent()
    if depth and draw(st.booleans()):
        message.inner.CopyFrom(draw(kinds(depth - 1)))
    return message


SLOW = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@SLOW
@given(kinds())
def test_what_is_written_reads_back_as_the_same_message(message: Any) -> None:
    assert decoded(json.dumps(encoded(message))) == message
    assert decoded(json.dumps(encoded(message, sparse=True))) == message


@SLOW
@given(kinds())
def test_it_reads_what_protobuf_writes(message: Any) -> None:
    for names in (True, False):
        text = json_format.MessageToJson(message, preserving_proto_field_name=names)
        assert decoded(text) == message


@SLOW
@given(kinds())
def test_protobuf_reads_what_it_writes(message: Any) -> None:
    assume(abs(message.real) < 3.4028234e38)  # the greatest float is written so by protobuf too, and not read

    def full(value: Any, short: str = "") -> Any:
        """Short enum names are our own."""
        names = {
            "RED": "THING_COLOR_RED",
            "BLUE": "THING_COLOR_BLUE",
            "GROUND": "LEVEL_GROUND",
            "FIRST": "LEVEL_FIRST",
        }
        if isinstance(value, dict):
            return {key: full(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [full(inner, short) for inner in value]
        return (
            names.get(value, value)
            if short in {"color", "level", "maybeColor", "maybeLevel", "colors"}
            else value
        )

    message.ClearField("free")
    message.ClearField("any_value")
    message.ClearField("any_list")
    assert json_format.Parse(json.dumps(full(encoded(message))), pb.Kinds()) == message


def test_what_is_always_there_and_what_is_left_out() -> None:
    out = encoded(pb.Thing())
    assert out == {"tags": [], "labels": {}, "sold": False, "count": 0}
    assert encoded(pb.Thing(name="")) == out | {"name": ""}
    assert encoded(pb.Thing(), sparse=True) == {}
    assert encoded(pb.Kinds(maybe_color=0)) == encoded(pb.Kinds())
    assert encoded(pb.Kinds(maybe_level=0))["maybeLevel"] == "GROUND"
    assert encoded(pb.Kinds(colors=[0, 3, 9]))["colors"] == ["UNSPECIFIED", "THING_COLOR_3D", 9]
    assert encoded(pb.Kinds(real=0.1, precise=math.nan))["real"] == 0.1
    assert encoded(pb.Kinds(precise=-math.inf, real=math.nan)).items() >= {
        ("precise", "-Infinity"),
        ("real", "NaN"),
    }


def test_masked_fields_are_absent() -> None:
    thing = pb.Thing(masked_fields=["sold", "place.row", "price_minor"], place={"row": 3, "shelf": "a"})
    out = encoded(thing)
    assert "sold" not in out
    assert out["place"] == {"shelf": "a"}
    assert out["maskedFields"] == ["sold", "place.row", "priceMinor"]
    assert "maskedFields" not in encoded(pb.Thing())


def test_enum_names() -> None:
    names = enum_names(KINDS.fields_by_name["color"].enum_type)
    assert names.shown == ("RED", "BLUE", "THING_COLOR_3D")
    for name in ("RED", "red", "THING_COLOR_RED", "thing_color_red"):
        assert decoded(json.dumps({"color": name})).color == 1
    assert refused('{"color": "Red"}') == {"color": "UNKNOWN_VALUE"}
    assert refused('{"color": 1}') == {"color": "WRONG_TYPE"}


@pytest.mark.parametrize(
    ("body", "field", "reason"),
    [
        ('{"i32": 1.5}', "i32", "WRONG_TYPE"),
        ('{"i32": "1.0"}', "i32", "WRONG_TYPE"),
        ('{"i32": " 1"}', "i32", "WRONG_TYPE"),
        ('{"i32": true}', "i32", "WRONG_TYPE"),
        ('{"i32": 2147483648}', "i32", "OUT_OF_RANGE"),
        ('{"u32": -1}', "u32", "OUT_OF_RANGE"),
        ('{"i64": "9223372036854775808"}', "i64", "OUT_OF_RANGE"),
        ('{"u64": 18446744073709551616}', "u64", "OUT_OF_RANGE"),
        ('{"i64": "٣"}', "i64", "WRONG_TYPE"),
        ('{"i64": ""}', "i64", "WRONG_TYPE"),
        ('{"precise": 1e999}', "precise", "OUT_OF_RANGE"),
        ('{"precise": "NaN"}', "precise", "WRONG_TYPE"),
        ('{"precise": "1_0"}', "precise", "WRONG_TYPE"),
        ('{"real": 1e39}', "real", "OUT_OF_RANGE"),
        ('{"flag": "true"}', "flag", "WRONG_TYPE"),
        ('{"flag": 1}', "flag", "WRONG_TYPE"),
        ('{"text": 1}', "text", "WRONG_TYPE"),
        ('{"text": "\\ud800"}', "text", "MALFORMED_TEXT"),
        ('{"blob": "a b"}', "blob", "MALFORMED_BASE64"),
        ('{"blob": "a"}', "blob", "MALFORMED_BASE64"),
        ('{"texts": "a"}', "texts", "WRONG_TYPE"),
        ('{"texts": ["a", null]}', "texts[1]", "WRONG_TYPE"),
        ('{"places": [{"row": "x"}]}', "places[0].row", "WRONG_TYPE"),
        ('{"place": []}', "place", "WRONG_TYPE"),
        ('{"byText": {"a": 1}}', 'byText["a"]', "WRONG_TYPE"),
        ('{"byText": {"a": null}}', 'byText["a"]', "WRONG_TYPE"),
        ('{"byNumber": {"x": 1}}', 'byNumber["x"]', "WRONG_TYPE"),
        ('{"byFlag": {"yes": "1"}}', 'byFlag["yes"]', "WRONG_TYPE"),
        ('{"instant": "2026-01-31"}', "instant", "MALFORMED_TIMESTAMP"),
        ('{"instant": "2026-02-30T00:00:00Z"}', "instant", "MALFORMED_TIMESTAMP"),
        ('{"instant": "2026-01-31T00:00:00"}', "instant", "MALFORMED_TIMESTAMP"),
        ('{"instant": "2026-01-31T00:00:60Z"}', "instant", "MALFORMED_TIMESTAMP"),
        ('{"instant": "0001-01-01T00:00:00+01:00"}', "instant", "MALFORMED_TIMESTAMP"),
        ('{"instant": "9999-12-31T23:59:59-01:00"}', "instant", "MALFORMED_TIMESTAMP"),
        ('{"instant": 5}', "instant", "WRONG_TYPE"),
        ('{"span": "5"}', "span", "MALFORMED_DURATION"),
        ('{"span": "315576000001s"}', "span", "OUT_OF_RANGE"),
        ('{"colour": "RED"}', "colour", "UNKNOWN_FIELD"),
        ('{"place": {"shelf": "a", "shelf": "b"}}', "place.shelf", "DUPLICATE_FIELD"),
        ('{"maybeText": "a", "maybe_text": "b"}', "maybe_text", "DUPLICATE_FIELD"),
        ('{"chosenText": "a", "chosenNumber": 1}', "chosenNumber", "ONEOF_CONFLICT"),
        ('{"free": {"a": "\\udfff"}}', 'free["a"]', "MALFORMED_TEXT"),
        ('{"free": {"\\udfff": 1}}', 'free["?"]', "MALFORMED_TEXT"),
        ('{"free": []}', "free", "WRONG_TYPE"),
        ('{"anyList": {}}', "anyList", "WRONG_TYPE"),
        ('{"wrappedLong": "x"}', "wrappedLong", "WRONG_TYPE"),
    ],
)
def test_wrong_values_are_named(body: str, field: str, reason: str) -> None:
    assert refused(body) == {field: reason}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1,]", b'{"a":1}x', b"\xff", b'\xef\xbb\xbf{}', b'{"i32": NaN}', b'{"i32": Infinity}',
     b"{'a':1}", b'{"a": 01}', b'{"text": "\n"}', b"[" * 100_000, b'{"i64": ' + b"1" * 5000 + b"}"],
)  # fmt: skip
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decoded(body)
    assert caught.value.reason == "MALFORMED_JSON"


def test_deep_nesting_is_refused_and_what_is_accepted_can_be_parsed() -> None:
    assert "TOO_DEEP" in refused('{"inner": ' * 40 + "{}" + "}" * 40).values()
    assert "TOO_DEEP" in refused('{"free": {"a": ' * 1 + '{"a": ' * 40 + "1" + "}" * 42).values()
    assert "TOO_DEEP" in refused('{"anyValue": ' + "[" * 200 + "]" * 200 + "}").values()
    deepest = decoded('{"free": ' + '{"a": ' * 26 + "1" + "}" * 27)
    assert pb.Kinds.FromString(deepest.SerializeToString()) == deepest


def test_everything_wrong_is_named_at_once_and_hints_cost_nothing() -> None:
    found = refused('{"i32": "x", "colour": 1, "place": {"rwo": 1}, "texts": [1, 2]}')
    assert list(found) == ["i32", "colour", "place.rwo", "texts[0]", "texts[1]"]
    many = json.dumps({f"field{i}" * 10: 1 for i in range(20_000)})
    with pytest.raises(InvalidArgument) as caught:
        decoded(many)
    assert len(caught.value.violations) == 50
    assert caught.value.metadata["violations_total"] == "20000"
    with pytest.raises(InvalidArgument) as caught:
        decoded('{"colour": 1}')
    assert caught.value.violations[0].description == 'There is no field "colour". Did you mean "color"?'


def test_null_leaves_a_field_unset() -> None:
    names = [field.json_name for field in KINDS.fields if field.name not in {"any_value", "nothing"}]
    assert decoded(json.dumps(dict.fromkeys(names))) == pb.Kinds()
    assert decoded('{"anyValue": null}').any_value.WhichOneof("kind") == "null_value"


def test_paths() -> None:
    assert json_path(KINDS, 'places_by_name["a.b_c"].row') == 'placesByName["a.b_c"].row'
    assert json_path(KINDS, "maybe_i32.x[") == "maybeI32.x["
    assert proto_path(KINDS, "placesByName.some_key.x") == "places_by_name.some_key.x"
    assert proto_path(KINDS, "free.some.key") == "free.some.key"
    assert proto_path(KINDS, "place.shelf") == "place.shelf"
    assert proto_path(KINDS, "place.shlf") is None
