"""Boundary on a real server: who may call, what is refused and how, and that nothing leaks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from libs import status
from libs.ids import new_id
from libs.problems import Problem
from tests.libs.echoes import SECRET, Echo, echo_server, pb


@pytest.fixture
async def echo(tmp_path: Path) -> AsyncIterator[Echo]:
    async with echo_server(tmp_path) as running:
        yield running


async def _drained(call: Any) -> None:
    async for _ in call:
        pass


async def refusal(call: Any) -> Problem:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await (_drained(call) if hasattr(call, "__aiter__") else call)
    assert SECRET not in str(refused.value)
    return status.from_rpc_error(refused.value)


async def refused(call: Any) -> tuple[str, str]:
    problem = await refusal(call)
    return problem.code.value, problem.reason


async def test_a_call_is_answered_as_its_caller(echo: Echo) -> None:
    business = new_id()
    metadata = echo.auth(businesses=[business], subject="ann", name="Ann")
    extra = [("x-request-id", "r-7"), ("x-regulars-purpose", "support call")]
    answer = await echo.stub.GetEcho(pb.Said(text="hello"), metadata=[*metadata, *extra])
    assert answer.text == "hello"
    caller = echo.servicer.caller
    assert caller is not None
    assert (caller.tenant_id, caller.subject, caller.kind) == (echo.tenant, "ann", "user")
    assert (caller.request_id, caller.purpose, caller.display_name) == ("r-7", "support call", "Ann")
    assert (caller.businesses, caller.permissions) == (frozenset({business}), frozenset({"echo.read"}))
    assert caller.method == "/echo.v1.EchoService/GetEcho"


async def test_the_text_of_an_exception_reaches_nobody(echo: Echo, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        problem = await refusal(echo.stub.GetEcho(pb.Said(text="raise"), metadata=echo.auth()))
    assert (problem.code, problem.reason, problem.message) == ("INTERNAL", "INTERNAL", "Internal error.")
    assert [record.message for record in caplog.records] == ["internal error"]
    streamed = echo.stub.StreamEchoes(pb.Said(text="raise", times=5), metadata=echo.auth())
    assert await refused(streamed) == ("INTERNAL", "INTERNAL")
    assert await refused(echo.stub.GetEcho(pb.Said(text="nothing"), metadata=echo.auth())) == (
        "INTERNAL",
        "INTERNAL",
    )


async def test_a_problem_arrives_with_all_its_facts(echo: Echo) -> None:
    problem = await refusal(echo.stub.GetEcho(pb.Said(text="problem"), metadata=echo.auth()))
    assert (problem.code, problem.reason, problem.message) == ("NOT_FOUND", "ECHO_GONE", "Gone.")
    assert (problem.metadata, problem.retry_after_seconds) == ({"who": "1"}, 2)


async def test_details_stay_under_what_a_client_reads(echo: Echo) -> None:
    problem = await refusal(echo.stub.GetEcho(pb.Said(text="many"), metadata=echo.auth()))
    assert problem.code == "INVALID_ARGUMENT"
    assert problem.metadata["violations_total"] == "1000"
    assert 5 < len(problem.violations) <= 50
    assert status.to_status(problem).ByteSize() < 4096 + 512


async def test_every_wrong_field_is_named_at_once(echo: Echo) -> None:
    wrong = pb.Said(text="a\x00b", times=101, person=pb.Person(family=[pb.Person(name="x\x00")]))
    wrong.remarks["de"].text = "\x00"
    wrong.at.seconds = 1 << 60
    problem = await refusal(echo.stub.GetEcho(wrong, metadata=echo.auth()))
    assert {(v.field, v.reason) for v in problem.violations} == {
        ("text", "STRING_NUL"),
        ("times", "INT32_GTE_LTE"),
        ("person.family[0].name", "STRING_NUL"),
        ('remarks["de"].text', "STRING_NUL"),
        ("at", "TIME_RANGE"),
    }
    assert echo.servicer.calls == 0


async def test_text_that_is_not_utf8_and_broken_messages_are_the_callers_fault(echo: Echo) -> None:
    raw: Any = echo.channel.unary_unary("/echo.v1.EchoService/GetEcho")
    for body in (b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80", b"\x0a\x7f", b"\xff\xff"):
        assert await refused(raw(body, metadata=echo.auth())) == ("INVALID_ARGUMENT", "INVALID_FIELDS")


async def test_permission_comes_before_the_request_is_read(echo: Echo) -> None:
    raw: Any = echo.channel.unary_unary("/echo.v1.EchoService/CreateEcho")
    problem = await refusal(raw(b"\xff\xff", metadata=echo.auth("reader")))
    assert (problem.code, problem.metadata) == ("PERMISSION_DENIED", {"permission": "echo.write"})
    assert await refused(raw(b"\xff\xff")) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert await refused(raw(b"\xff\xff", metadata=echo.auth("all"))) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELDS",
    )


async def test_self_service_answers_customers_only(echo: Echo) -> None:
    customer = new_id()
    await echo.stub.GetMine(pb.Said(), metadata=echo.auth(customer=customer))
    assert echo.servicer.caller is not None
    assert (echo.servicer.caller.kind, echo.servicer.caller.customer_id) == ("customer", customer)
    assert (
        await refusal(echo.stub.GetMine(pb.Said(), metadata=echo.auth("all")))
    ).code == "PERMISSION_DENIED"
    stolen = echo.auth("all", customer=customer)
    assert (await refusal(echo.stub.GetEcho(pb.Said(), metadata=stolen))).code == "PERMISSION_DENIED"


async def test_the_platform_needs_no_tenant_and_all_else_a_known_one(echo: Echo) -> None:
    platform = echo.auth("platform", "all", tenant=None)
    await echo.stub.GetPlatform(pb.Said(), metadata=platform)
    assert (
        await refusal(echo.stub.GetPlatform(pb.Said(), metadata=echo.auth("all")))
    ).code == "PERMISSION_DENIED"
    assert (await refusal(echo.stub.GetEcho(pb.Said(), metadata=platform))).metadata == {"cause": "tenant"}
    echo.unknown.add(echo.tenant)
    assert await refused(echo.stub.GetEcho(pb.Said(), metadata=echo.auth())) == ("UNAUTHENTICATED",) * 2


async def test_peers_may_call_what_lists_them(echo: Echo) -> None:
    await echo.stub.GetEcho(pb.Said(), metadata=echo.peer("loyalty"))
    caller = echo.servicer.caller
    assert caller is not None
    assert (caller.kind, caller.service, caller.on_behalf_of) == ("service", "loyalty", "ann")
    assert (caller.tenant_id, caller.permissions) == (echo.tenant, frozenset({"echo.read"}))
    assert (await refusal(echo.stub.GetEcho(pb.Said(), metadata=echo.peer("privacy")))).metadata == {
        "peer": "privacy"
    }
    elsewhere = echo.stub.GetEcho(pb.Said(), metadata=echo.peer("loyalty", target="privacy"))
    assert (await refusal(elsewhere)).metadata == {"cause": "audience"}
    assert (
        await refusal(echo.stub.GetMine(pb.Said(), metadata=echo.peer("loyalty")))
    ).code == "PERMISSION_DENIED"


async def test_streams_of_every_kind(echo: Echo) -> None:
    answers = [a async for a in echo.stub.StreamEchoes(pb.Said(times=3), metadata=echo.auth(subject="ann"))]
    assert [(a.text, a.times) for a in answers] == [("ann", 0), ("ann", 1), ("ann", 2)]
    said = [pb.Said(text=str(i)) for i in range(4)]
    assert (await echo.stub.CountEchoes(iter(said), metadata=echo.auth())).times == 4
    assert [a.text async for a in echo.stub.Chat(iter(said), metadata=echo.auth())] == ["0", "1", "2", "3"]
    wrong = [pb.Said(), pb.Said(times=-1)]
    assert await refused(echo.stub.CountEchoes(iter(wrong), metadata=echo.auth())) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELDS",
    )
    assert await refused(echo.stub.Chat(iter(wrong), metadata=echo.auth())) == (
        "INVALID_ARGUMENT",
        "INVALID_FIELDS",
    )
    assert (await refusal(echo.stub.StreamEchoes(pb.Said()))).code == "UNAUTHENTICATED"


async def test_deadlines_are_kept_and_reported(echo: Echo) -> None:
    problem = await refusal(echo.stub.GetEcho(pb.Said(text="sleep"), timeout=0.4, metadata=echo.auth()))
    assert (problem.code, problem.message) == ("DEADLINE_EXCEEDED", "The deadline is too short.")
    await asyncio.wait_for(echo.servicer.cancelled.wait(), 5)
    calls = echo.servicer.calls
    short = await refusal(echo.stub.GetEcho(pb.Said(), timeout=0.09, metadata=echo.auth()))
    assert (short.code, echo.servicer.calls) == ("DEADLINE_EXCEEDED", calls)


async def test_a_call_without_a_deadline_gets_one(tmp_path: Path) -> None:
    async with echo_server(tmp_path, deadline_seconds=0.2) as echo:
        problem = await refusal(echo.stub.GetEcho(pb.Said(text="sleep"), metadata=echo.auth()))
        assert problem.code == "DEADLINE_EXCEEDED"


async def test_a_cancelled_call_stops_its_handler(echo: Echo) -> None:
    call = echo.stub.GetEcho(pb.Said(text="sleep"), metadata=echo.auth())
    await asyncio.wait_for(echo.servicer.started.wait(), 5)
    call.cancel()
    await asyncio.wait_for(echo.servicer.cancelled.wait(), 5)
    echo.servicer.started.clear()
    stream = echo.stub.StreamEchoes(pb.Said(text="sleep", times=2), metadata=echo.auth())
    await stream.read()
    await asyncio.wait_for(echo.servicer.started.wait(), 5)
    stream.cancel()
    await asyncio.wait_for(echo.servicer.closed.wait(), 5)


async def test_more_calls_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    async with echo_server(tmp_path, rpc_limit=1) as echo:
        first = asyncio.ensure_future(echo.stub.GetEcho(pb.Said(text="wait"), metadata=echo.auth()))
        await asyncio.wait_for(echo.servicer.started.wait(), 5)
        problem = await refusal(echo.stub.GetEcho(pb.Said(), metadata=echo.auth()))
        assert (problem.code, problem.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
        assert problem.retry_after_seconds == 1
        echo.servicer.go.set()
        await first
        await echo.stub.GetEcho(pb.Said(), metadata=echo.auth())


async def test_a_stop_lets_running_calls_end(tmp_path: Path) -> None:
    async with echo_server(tmp_path) as echo:
        running = asyncio.ensure_future(echo.stub.GetEcho(pb.Said(text="wait"), metadata=echo.auth()))
        await asyncio.wait_for(echo.servicer.started.wait(), 5)
        stopping = asyncio.ensure_future(echo.server.stop(10))
        echo.servicer.go.set()
        assert (await running).text == "wait"
        await stopping


async def test_health_and_reflection_answer_everybody(echo: Echo) -> None:
    health = health_pb2_grpc.HealthStub(echo.channel)
    for name in ("", "echo", "echo.v1.EchoService"):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await echo.server.set_serving(False)
    answer = await health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    for version in ("v1", "v1alpha"):
        ask: Any = echo.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {s.name for s in (await call.read()).list_services_response.service}
        assert {"echo.v1.EchoService", "grpc.health.v1.Health"} <= names


async def test_unknown_rpcs_are_unimplemented_and_odd_headers_refused(echo: Echo) -> None:
    nowhere: Any = echo.channel.unary_unary("/echo.v1.EchoService/Nowhere")
    assert (await refusal(nowhere(b"", metadata=echo.auth()))).code == "UNIMPLEMENTED"
    long = [("x-request-id", "r" * 201)]
    problem = await refusal(echo.stub.GetEcho(pb.Said(), metadata=[*echo.auth(), *long]))
    assert [v.field for v in problem.violations] == ["x-request-id"]


async def test_the_status_is_a_google_rpc_status(echo: Echo) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await echo.stub.GetEcho(pb.Said(times=101), metadata=echo.auth())
    found = Status.FromString(dict(error.value.trailing_metadata() or ())["grpc-status-details-bin"])
    request = BadRequest()
    assert found.details[1].Unpack(request)
    assert (found.code, request.field_violations[0].field) == (3, "times")
