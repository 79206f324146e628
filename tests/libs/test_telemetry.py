"""Logs without values, spans with the right status, metrics of every call."""

import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from libs import logs, telemetry
from libs.logs import JsonFormatter, redact
from libs.problems import NotFound
from tests.libs.echoes import SECRET, Echo, echo_server, pb


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    async with echo_server(tmp_path) as running:
        yield running


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    found = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    telemetry.trace_with(provider)
    return found


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


async def test_a_failed_call_is_logged_with_its_caller_and_without_its_text(
    echo: Echo, written: io.StringIO
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    metadata = [*echo.auth(), ("traceparent", parent), ("x-request-id", "r-9")]
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.stub.GetEcho(pb.Said(text="raise"), metadata=metadata)
    assert SECRET not in written.getvalue()
    line = next(line for line in lines(written) if line["message"] == "internal error")
    assert (line["service"], line["rpc"]) == ("echo", "/echo.v1.EchoService/GetEcho")
    assert (line["tenant"], line["request_id"]) == (str(echo.tenant), "r-9")
    assert line["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert line["error"]["type"] == "ValueError"
    assert "text" not in line["error"]
    assert line["error"]["stack"][-1].startswith("tests/libs/echoes.py:")


def test_errors_are_described_by_type_and_place() -> None:
    try:
        try:
            int("ann@example.com")
        except ValueError as inner:
            raise NotFound(who="ann@example.com") from inner
    except NotFound as error:
        described = logs.describe(error)
    assert "ann" not in json.dumps(described)
    assert (described["reason"], described["causes"]) == ("NOT_FOUND", ["ValueError"])
    with pytest.raises(AttributeError) as telling:
        None.upper()  # type: ignore[attr-defined]
    assert "upper" in logs.describe(telling.value)["text"]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mail to ann@example.com failed", "mail to [e-mail] failed"),
        ("call +49 30 123456 now", "call [phone] now"),
        ("at postgresql://bob:hush@db/x", "at postgresql://[credentials]@db/x"),
        ("Bearer eyJhbGciOi.eyJzdWIi.c2ln", "Bearer [token]"),
        ("2026-01-31T12:00:00+00:00 took 12+3 ms", "2026-01-31T12:00:00+00:00 took 12+3 ms"),
    ],
)
def test_what_looks_personal_is_redacted(text: str, kept: str) -> None:
    assert redact(text) == kept


def test_extras_of_any_kind_make_a_line(written: io.StringIO) -> None:
    extra = {"path": Path("/x"), "names": {"b", "a"}, "thing": object(), "to": "ann@example.com"}
    logging.getLogger("x").error("said %s", "ann@example.com", extra=extra)
    line = lines(written)[-1]
    assert (line["message"], line["path"], line["names"]) == ("said [e-mail]", "/x", ["a", "b"])
    assert (line["thing"], line["to"]) == ("object", "[e-mail]")
    logging.getLogger("asyncio").error("Task failed\nfuture: <Task exception=ValueError('ann')>")
    assert lines(written)[-1]["message"] == "Task failed"


async def test_spans_bear_the_status_that_the_client_gets(echo: Echo, exporter: InMemorySpanExporter) -> None:
    async def span_of(text: str) -> Any:
        exporter.clear()
        call = echo.stub.GetEcho(pb.Said(text=text), metadata=echo.auth())
        with contextlib.suppress(grpc.aio.AioRpcError):
            await call
        found = exporter.get_finished_spans()
        return next(span for span in found if span.name == "echo.v1.EchoService/GetEcho")

    fine = await span_of("hello")
    assert fine.attributes["rpc.grpc.status_code"] == "OK"
    assert fine.status.status_code is trace.StatusCode.UNSET
    refused = await span_of("problem")
    assert refused.attributes["rpc.grpc.status_code"] == "NOT_FOUND"
    assert refused.status.status_code is trace.StatusCode.UNSET
    failed = await span_of("raise")
    assert failed.attributes["rpc.grpc.status_code"] == "INTERNAL"
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert SECRET not in failed.to_json()


async def test_calls_are_counted_by_code(echo: Echo) -> None:
    def count(code: str) -> float:
        labels = {"service": "echo", "method": "EchoService.GetEcho", "code": code}
        return REGISTRY.get_sample_value("regulars_rpc_seconds_count", labels) or 0

    before = count("OK"), count("NOT_FOUND")
    await echo.stub.GetEcho(pb.Said(), metadata=echo.auth())
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.stub.GetEcho(pb.Said(text="problem"), metadata=echo.auth())
    assert (count("OK"), count("NOT_FOUND")) == (before[0] + 1, before[1] + 1)
    assert REGISTRY.get_sample_value("regulars_rpc_running", {"service": "echo"}) == 0


def test_traceparents_are_read_and_written() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with telemetry.span("inside", parent=telemetry.extract(parent)):
        assert telemetry.traceparent().split("-")[1] == "0af7651916cd43dd8448eb211c80319c"
    for wrong in (
        None,
        "",
        "00-xyz",
        parent + "-more-é"[:0] + "0" * 3,
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
    ):
        with telemetry.span("inside", parent=telemetry.extract(wrong)):
            trace_id = telemetry.traceparent().split("-")[1]
            assert trace_id not in {"0" * 32, "0af7651916cd43dd8448eb211c80319c"}
    assert telemetry.traceparent() == ""


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("SELECT a, 'x' FROM customers WHERE id = %s", "SELECT customers"),
        ("insert into outbox (a) values (1)", "INSERT outbox"),
        ("WITH x AS (SELECT 1 FROM jobs) SELECT 1", "WITH jobs"),
        ("BEGIN", "BEGIN"),
        ("", "SQL"),
    ],
)
def test_statements_are_named_without_values(statement: str, name: str) -> None:
    assert telemetry.statement_name(statement) == name
