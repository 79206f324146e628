"""The gRPC server of a service: our interceptors, health, reflection, and a stop that loses nothing."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from libs import status, validation
from libs.boundary import Boundary
from libs.config import Settings
from libs.contracts import Method
from libs.roles import Roles
from libs.rpc import Handler
from libs.tokens import Tokens
from libs.tracing import Tracing

# What the generated code gives to register a servicer with, and the servicer.
Registered = tuple[Callable[[Any, Any], None], Any]

REFLECTION = "grpc.reflection.v1.ServerReflection"
MAX_RECEIVED = 4 << 20
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def _options() -> list[tuple[str, int]]:
    minute = 60_000
    return [
        ("grpc.so_reuseport", 0),  # two processes on one port would each get some connections, and not evenly
        ("grpc.max_receive_message_length", MAX_RECEIVED),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", minute),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        # Old connections are closed, each at another time, so that clients find new servers.
        ("grpc.max_connection_age_ms", random.randint(25 * minute, 35 * minute)),  # noqa: S311
        ("grpc.max_connection_age_grace_ms", 6 * 60 * minute),  # for files under way on slow lines
    ]


class Server:
    """One service's gRPC server. Not serving by its own health until `set_serving(True)`."""

    def __init__(
        self,
        settings: Settings,
        service: str,
        methods: Mapping[str, Method],
        servicers: Sequence[Registered],
        *,
        tokens: Tokens,
        roles: Roles,
        tenant_known: Callable[[UUID], Awaitable[object]],
        constraints: status.Constraints | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._methods = {path: method for path, method in methods.items() if method.service_name == service}
        self._tracing = Tracing(service, self._methods)
        self._boundary = Boundary(
            self._methods,
            tokens,
            roles,
            tenant_known=tenant_known,
            constraints=constraints,
            limit=settings.rpc_limit,
            deadline_seconds=settings.deadline_seconds,
        )
        interceptors = [self._tracing, self._boundary]
        self._server = grpc.aio.server(interceptors=interceptors, options=_options())
        self._health = health.aio.HealthServicer()
        self.port = 0
        self._plain = _Handlers()
        for add, servicer in servicers:
            add(servicer, self._server)
            add(servicer, self._plain)
        self._names = sorted({path.split("/")[1] for path in self._methods})
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _add_reflection(
            self._server, (*self._names, health.SERVICE_NAME, REFLECTION, reflection.SERVICE_NAME)
        )

    async def start(self) -> None:
        """Listens. Raises OSError if the port is taken."""
        for method in self._methods.values():
            validation.warm_up(method.input, GetMessageClass(method.input))
        await self.set_serving(False)
        address = f"{self._settings.bind}:{self._settings.grpc_port_of(self._service)}"
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"{self._service} cannot listen at {address}: the port is taken") from error
        await self._server.start()

    async def handler(self, path: str) -> Handler:
        """The handler of one of our RPCs as gRPC serves it, interceptors around it; for other doors to it."""

        async def plain(details: grpc.HandlerCallDetails) -> Handler:
            return self._plain.found[details.method]

        async def guarded(details: grpc.HandlerCallDetails) -> Handler | None:
            return await self._boundary.intercept_service(plain, details)

        found = await self._tracing.intercept_service(guarded, _Details(path, ()))
        if found is None:
            raise LookupError(path)
        return found

    async def set_serving(self, serving: bool) -> None:
        """Tells the health of this service, by its name, its gRPC services' names and none."""
        state = _SERVING if serving else _NOT_SERVING
        for name in ("", self._service, *self._names):
            await self._health.set(name, state)

    async def stop(self, drain_seconds: float = 0) -> None:
        """Takes no more calls, and gives those that run `drain_seconds`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(drain_seconds)


@dataclass
class _Details:
    """What gRPC tells an interceptor of a call."""

    method: str
    invocation_metadata: Any


class _Handlers:
    """Takes what the generated code registers, as a server would."""

    def __init__(self) -> None:
        self.found: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same handlers again, without their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Handlers of a service by the names of its RPCs."""
        self.found |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


def _add_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Under its two names: v1, and v1alpha for older tools. The messages are the same on the wire."""
    servicer = reflection.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (REFLECTION, reflection.SERVICE_NAME):
        handlers = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((handlers,))
