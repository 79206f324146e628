"""A real service with every manner that the gateway knows: what its tests are served by."""

import asyncio
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc_tools
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty
from google.rpc import code_pb2

from libs import contracts, downloads
from libs.caller import current
from libs.config import Settings
from libs.contracts import GEN, Method
from libs.ids import new_id
from libs.problems import Code, EtagMismatch, InvalidArgument, NotFound, Problem, Unauthenticated, Violation
from libs.roles import Roles
from libs.sealed_files import FileTooLarge
from libs.server import Server
from libs.tokens import Tokens, make_issuer, mint

PROTOS = Path(__file__).parent / "protos"
PERMISSIONS = ["things.read", "things.write"]
ROLES = """
[roles.all]
permissions = ["*"]
[roles.reader]
permissions = ["things.read"]
[roles.customer]
permissions = []
"""
SECRET = "ann@example.com"


def _generated() -> tuple[Any, Any]:
    out = Path(tempfile.mkdtemp(prefix="regulars-shop-"))
    well_known = Path(str(grpc_tools.__file__)).parent / "_proto"
    arguments = [
        f"-I{PROTOS}",
        f"-I{well_known.parent.parent}",
        f"-I{well_known}",
        f"--descriptor_set_in={GEN / 'descriptors.binpb'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        "shop/v1/shop.proto",
    ]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *arguments], check=True)
    sys.path.append(str(out))
    return import_module("shop.v1.shop_pb2"), import_module("shop.v1.shop_pb2_grpc")


pb, pb_grpc = _generated()
METHODS: Mapping[str, Method] = {m.path: m for m in contracts.methods_of(pb.DESCRIPTOR)}
COMMENTS = {
    "shop.v1.Thing": "A thing.",
    "shop.v1.Thing.id": "Id of the thing. Output only.",
    "shop.v1.Thing.name": "Name, 1 to 20 characters. Required.",
    "shop.v1.Thing.created_at": "When it was made. Output\nonly.",
    "shop.v1.Thing.etag": "Version for If-Match. Output only.",
    "shop.v1.Thing.masked_fields": "Fields that the caller may not read. Output only.",
    "shop.v1.ShopService": "Sells things.",
    "shop.v1.ShopService.CreateThing": "Creates a thing. See `page_token`.",
    "shop.v1.ThingColor.THING_COLOR_RED": "As blood.",
}


class LinkInvalid(Unauthenticated):
    """The link does not hold."""

    reason = "LINK_INVALID"
    message = "The link does not hold."


@dataclass
class ShopServicer:
    """Does what the request says, and remembers what it was asked."""

    requests: list[Any] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    things: dict[str, Any] = field(default_factory=dict)
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0
    received: int = 0

    def _heard(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))

    def _thing(self, name: str) -> Any:
        if name not in self.things:
            raise NotFound
        return self.things[name]

    async def CreateThing(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        thing = pb.Thing()
        thing.CopyFrom(request.thing)
        thing.id, thing.etag = str(new_id()), "v1"
        thing.created_at.FromJsonString("2026-01-31T12:00:00.123456789Z")
        if not request.validate_only:
            self.things[thing.id] = thing
        return thing

    async def GetThing(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        return self._thing(request.id)

    async def ListThings(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        return pb.ListThingsResponse(things=self.things.values(), total_size=len(self.things))

    async def UpdateThing(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        if request.etag and request.etag != self._thing(request.id).etag:
            raise EtagMismatch
        return self._thing(request.id)

    async def DeleteThing(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        del self.things[self._thing(request.id).id]
        return Empty()

    async def CountThings(self, request: Any, context: Any) -> Any:
        return pb.CountThingsResponse(by_color={"RED": 1}, total=1 << 40)

    async def PaintThing(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        return pb.PaintThingResponse(thing=pb.Thing(id=request.id, color=request.color), coats=2)

    async def Echo(self, request: Any, context: Any) -> Any:
        return request

    async def Wait(self, request: Any, context: Any) -> Any:
        self._heard(request, context)
        self.waiting.set()
        try:
            if request.name != "no":
                await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return pb.WaitResponse(seconds_given=context.time_remaining(), metadata=self._plain(context))

    def _plain(self, context: Any) -> dict[str, str]:
        return {k: v for k, v in context.invocation_metadata() if isinstance(v, str)}

    async def Fail(self, request: Any, context: Any) -> Any:
        if request.code == "BUG":
            raise ValueError(f"secret of {SECRET}")
        if request.code == "ETAG":
            raise EtagMismatch
        assert request.code in code_pb2.Code.DESCRIPTOR.values_by_name
        kind = type(
            "Refusal", (Problem,), {"code": Code[request.code], "reason": request.reason or "REFUSED"}
        )
        violations = [Violation(name, "wrong") for name in request.fields]
        wait = request.retry_after if request.HasField("retry_after") else None
        raise kind(request.message or "No.", violations=violations, retry_after_seconds=wait, fact="as it is")

    async def StreamNumbers(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.sent = 0
        if request.fail_first:
            raise NotFound
        try:
            for number in range(request.count):
                if request.fail_after and number == request.fail_after:
                    raise NotFound("Gone.")
                yield pb.StreamNumbersResponse(number=number, padding="x" * request.padding)
                self.sent += 1
            if request.count == 0:
                return
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def GetFile(self, request: Any, context: Any) -> Any:
        return HttpBody(content_type="text/html", data=request.path.encode())

    async def StreamFile(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for part in request.path.split("/"):
            if part == "fail":
                raise NotFound
            yield HttpBody(content_type="text/csv", data=part.encode())

    async def PutFile(self, request: Any, context: Any) -> Any:
        return pb.PutFileResponse(content_type=request.content.content_type, size=len(request.content.data))

    async def FollowLink(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._heard(request, context)
        caller = current()
        assert (caller.tenant_id, caller.permissions, caller.businesses) == (None, frozenset(), frozenset())
        if request.signature != "good":
            raise LinkInvalid
        told = (
            ("x-export-id", "7"),
            ("x-request-id", "forged"),
            ("x-regulars-secret", "no"),
            ("other", "no"),
        )
        named = (downloads.DISPOSITION_KEY, downloads.disposition(request.name))
        await context.send_initial_metadata((named, *told))
        for number in range(request.parts or 1):
            yield HttpBody(content_type=request.type, data=b"%06d," % number * 1000)

    async def UploadFile(self, requests: AsyncIterator[Any], context: Any) -> Any:
        settings = (await anext(requests)).settings
        self._heard(settings, context)
        self.received = 0
        if settings.kind == "refused":
            raise NotFound("No such shelf.")
        if settings.kind == "wrong":
            raise InvalidArgument.of("settings.kind", "is wrong")
        digest = hashlib.sha256()
        try:
            async for request in requests:
                digest.update(request.chunk)
                self.received += len(request.chunk)
                self.waiting.set()
                if settings.kind == "slow":
                    await self.go.wait()
                if 0 < settings.limit < self.received:
                    raise FileTooLarge(limit_bytes=settings.limit)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return pb.UploadFileResponse(size=self.received, digest=digest.hexdigest(), settings=settings)

    async def Hidden(self, request: Any, context: Any) -> Any:
        return request


@dataclass
class Shop:
    """The running service, and tokens for it."""

    home: Path
    server: Server
    servicer: ShopServicer

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"127.0.0.1:{self.server.port}"

    def token(self, tenant: UUID, *roles: str, **changes: Any) -> str:
        """A user's token."""
        return mint(self.home, tenant=tenant, roles=roles or ["all"], **changes)


@asynccontextmanager
async def shop_server(home: Path, port: int = 0) -> AsyncIterator[Shop]:
    """The service on a free port, with the development issuer in `home`."""
    make_issuer(home)
    roles = home / "roles.toml"
    roles.write_text(ROLES)
    settings = Settings(home=home, grpc_port=0, grpc_ports={"shop": port}, roles_file=roles)
    servicer = ShopServicer()

    async def known(tenant_id: UUID) -> None:
        assert current().tenant_id == tenant_id

    tokens = Tokens.of(settings, "shop")
    server = Server(
        settings,
        "shop",
        METHODS,
        [(pb_grpc.add_ShopServiceServicer_to_server, servicer)],
        tokens=tokens,
        roles=Roles.load(roles, PERMISSIONS),
        tenant_known=known,
    )
    await server.start()
    await server.set_serving(True)
    try:
        yield Shop(home, server, servicer)
    finally:
        await server.stop()
        await tokens.close()
