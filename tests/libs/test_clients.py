"""Calls between services: as ourselves, for the caller, within its deadline, and failing as Problems."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from libs import deadlines
from libs.caller import Caller, acting_as
from libs.clients import Clients
from libs.ids import new_id
from libs.problems import DeadlineExceeded, NotFound, PermissionDenied, Problem, Unavailable
from tests.libs.echoes import Echo, echo_server, pb, pb_grpc


@dataclass
class Pair:
    """A running service, and another one's stub of it."""

    echo: Echo
    clients: Clients
    stub: Any

    @property
    def caller(self) -> Caller:
        return Caller(
            tenant_id=self.echo.tenant, subject="ann", businesses=frozenset({new_id()}), purpose="because"
        )


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with echo_server(tmp_path) as echo:
        settings = replace(echo.settings, addresses={"echo": f"127.0.0.1:{echo.server.port}"})
        clients = Clients("loyalty", settings)
        yield Pair(echo, clients, clients.stub(pb_grpc.EchoServiceStub, "echo"))
        await clients.close()


async def test_a_peer_is_called_as_ourselves_on_behalf_of_the_caller(pair: Pair) -> None:
    with acting_as(caller := pair.caller):
        assert (await pair.stub.GetEcho(pb.Said(text="hi"))).text == "hi"
    seen = pair.echo.servicer.caller
    assert seen is not None
    assert (seen.service, seen.on_behalf_of, seen.purpose) == ("loyalty", "ann", "because")
    assert (seen.tenant_id, seen.businesses) == (caller.tenant_id, caller.businesses)


async def test_refusals_come_back_as_problems(pair: Pair) -> None:
    with acting_as(pair.caller):
        with pytest.raises(NotFound) as gone:
            await pair.stub.GetEcho(pb.Said(text="problem"))
        assert (gone.value.reason, gone.value.metadata) == ("ECHO_GONE", {"who": "1"})
        with pytest.raises(Problem) as bug:
            await pair.stub.GetEcho(pb.Said(text="raise"))
        assert bug.value.code == "INTERNAL"
        with pytest.raises(PermissionDenied):
            await pair.stub.GetMine(pb.Said())
        with pytest.raises(Problem):
            await pair.stub.CountEchoes(_requests(pb.Said(times=-1)))
        with pytest.raises(Problem):
            _ = [a async for a in pair.stub.StreamEchoes(pb.Said(text="raise", times=5))]


async def test_streams(pair: Pair) -> None:
    with acting_as(pair.caller):
        assert [a.times async for a in pair.stub.StreamEchoes(pb.Said(times=3))] == [0, 1, 2]
        assert (await pair.stub.CountEchoes(_requests(pb.Said(), pb.Said()))).times == 2


async def test_reads_are_tried_again_while_the_peer_is_away(pair: Pair) -> None:
    with acting_as(pair.caller):
        assert (await pair.stub.GetEcho(pb.Said(text="away"))).text == "away"
        assert pair.echo.servicer.calls == 3
        pair.echo.servicer.calls = 0
        with pytest.raises(Unavailable):
            await pair.stub.CreateEcho(pb.Said(text="away"))
        assert pair.echo.servicer.calls == 1
        pair.echo.servicer.calls = 0
        await pair.stub.CreateEcho(pb.Said(text="away", request_id="r-1"))
        assert pair.echo.servicer.calls == 3


async def test_the_callers_deadline_goes_along(pair: Pair) -> None:
    with acting_as(pair.caller):
        with pytest.raises(DeadlineExceeded):
            await pair.stub.GetEcho(pb.Said(text="sleep"), timeout=0.2)
        await asyncio.wait_for(pair.echo.servicer.cancelled.wait(), 5)
        deadlines.set_to(0.2)
        with pytest.raises(DeadlineExceeded):
            await pair.stub.GetEcho(pb.Said(text="sleep"))
        calls = pair.echo.servicer.calls
        deadlines.set_to(0.05)
        with pytest.raises(DeadlineExceeded):
            await pair.stub.GetEcho(pb.Said())
        assert pair.echo.servicer.calls == calls


async def test_a_peer_that_is_absent_or_does_not_know_us_is_unavailable(pair: Pair, tmp_path: Path) -> None:
    settings = replace(pair.echo.settings, addresses={"echo": "127.0.0.1:1"})
    absent = Clients("loyalty", settings)
    with pytest.raises(Unavailable):
        await absent.stub(pb_grpc.EchoServiceStub, "echo").GetEcho(pb.Said(), timeout=1)
    await absent.close()
    stranger = Clients(
        "segments",
        replace(
            pair.echo.settings,
            internal_keys=tmp_path / "elsewhere",
            addresses={"echo": f"127.0.0.1:{pair.echo.server.port}"},
        ),
    )
    with pytest.raises(Unavailable) as refused:
        await stranger.stub(pb_grpc.EchoServiceStub, "echo").CreateEcho(pb.Said())
    assert refused.value.metadata == {"peer": "echo"}
    await stranger.close()


async def _requests(*said: Any) -> AsyncIterator[Any]:
    for each in said:
        yield each
