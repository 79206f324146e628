"""A small real service on a real server: what the tests of server, tokens, masks and clients talk to."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc

from libs import caller as callers
from libs import contracts
from libs.config import Settings
from libs.contracts import GEN, Method
from libs.ids import new_id
from libs.internal_keys import InternalIssuer
from libs.problems import InvalidArgument, NotFound, Unauthenticated, Unavailable, Violation
from libs.roles import Roles
from libs.server import Server
from libs.tokens import Tokens, make_issuer, mint

PROTOS = Path(__file__).parent / "protos"
ROLES = """
[roles.reader]
permissions = ["echo.read"]
[roles.masked]
permissions = ["echo.*"]
masks = ["user.contact"]
[roles.all]
permissions = ["*"]
[roles.customer]
permissions = []
[roles.platform]
permissions = ["platform.*"]
"""


def _generated() -> tuple[Any, Any]:
    out = Path(tempfile.mkdtemp(prefix="regulars-echo-"))
    arguments = (f"-I{PROTOS}", f"--descriptor_set_in={GEN / 'descriptors.binpb'}", f"--python_out={out}")
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        *arguments,
        f"--grpc_python_out={out}",
        "echo/v1/echo.proto",
    ]
    subprocess.run(command, check=True)
    sys.path.append(str(out))
    return import_module("echo.v1.echo_pb2"), import_module("echo.v1.echo_pb2_grpc")


pb, pb_grpc = _generated()
METHODS: Mapping[str, Method] = {m.path: m for m in contracts.methods_of(pb.DESCRIPTOR)}
PERMISSIONS = ["echo.read", "echo.write", "platform.echo"]
SECRET = "ann@example.com"


class Gone(NotFound):
    """A refusal of this service's own."""

    reason = "ECHO_GONE"
    message = "Gone."


class EchoServicer:
    """Does what the text says."""

    def __init__(self) -> None:
        self.calls = 0
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.closed = asyncio.Event()
        self.go = asyncio.Event()
        self.caller: callers.Caller | None = None
        self.remaining: float | None = None

    async def GetEcho(self, request: Any, context: Any) -> Any:
        self.calls += 1
        self.caller = callers.current()
        self.started.set()
        match request.text:
            case "raise":
                raise ValueError(f"secret of {SECRET}")
            case "problem":
                raise Gone(who="1", retry_after_seconds=2)
            case "many":
                violations = [Violation(f"person.{i}" * 9, "wrong " * 20) for i in range(1000)]
                raise InvalidArgument(violations=violations)
            case "sleep":
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            case "wait":
                await self.go.wait()
            case "nothing":
                return None
            case "away":
                if self.calls < 3:
                    raise Unavailable
        return request

    CreateEcho = GetMine = GetPlatform = GetEcho

    async def StreamEchoes(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            for number in range(request.times):
                if request.text == "raise" and number == 2:
                    raise ValueError(f"secret of {SECRET}")
                yield pb.Said(text=callers.current().subject, times=number, person=request.person)
                if request.text == "sleep":
                    self.started.set()
                    await asyncio.sleep(60)
        finally:
            self.closed.set()

    async def CountEchoes(self, requests: AsyncIterator[Any], context: Any) -> Any:
        return pb.Said(times=len([said async for said in requests]))

    async def Chat(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for said in requests:
            yield said


@dataclass
class Echo:
    """A running server, and ways to call it."""

    settings: Settings
    server: Server
    servicer: EchoServicer
    tenant: UUID
    channel: grpc.aio.Channel
    stub: Any
    unknown: set[UUID] = field(default_factory=set)

    def token(self, *roles: str, **changes: Any) -> str:
        """A user's token of this server's tenant."""
        changes.setdefault("tenant", self.tenant)
        return mint(self.settings.home, roles=roles or ["reader"], **changes)

    def auth(self, *roles: str, **changes: Any) -> list[tuple[str, str]]:
        """The same as metadata."""
        return [("authorization", f"Bearer {self.token(*roles, **changes)}")]

    def peer(self, service: str, target: str = "echo") -> list[tuple[str, str]]:
        """Metadata of a call by another service."""
        issuer = InternalIssuer(service, self.settings.internal_keys)
        caller = callers.Caller(tenant_id=self.tenant, subject="ann")
        return [("x-regulars-internal", issuer.token(target, caller))]


@asynccontextmanager
async def echo_server(
    home: Path, permissions: Iterable[str] = PERMISSIONS, **settings: Any
) -> AsyncIterator[Echo]:
    """The service on a free port, with the development issuer in `home`."""
    make_issuer(home)
    (home / "roles.toml").write_text(ROLES)
    found = Settings(home=home, grpc_port=0, roles_file=home / "roles.toml", **settings)
    servicer, unknown = EchoServicer(), set[UUID]()

    async def known(tenant_id: UUID) -> None:
        if tenant_id in unknown:
            raise Unauthenticated("There is no such tenant.", cause="tenant")

    tokens = Tokens.of(found, "echo")
    server = Server(
        found,
        "echo",
        METHODS,
        [(pb_grpc.add_EchoServiceServicer_to_server, servicer)],
        tokens=tokens,
        roles=Roles.load(found.roles_file, permissions),
        tenant_known=known,
    )
    await server.start()
    await server.set_serving(True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Echo(found, server, servicer, new_id(), channel, pb_grpc.EchoServiceStub(channel), unknown)
    await server.stop()
    await tokens.close()
