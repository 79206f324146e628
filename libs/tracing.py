"""The outermost interceptor: a span and a measurement of every call, with the status that the client gets."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from opentelemetry.trace import SpanKind, Status, StatusCode

from libs import telemetry
from libs.contracts import Method
from libs.logs import service_name
from libs.rpc import MAKERS, Context, Continuation, Handler, kind_of

# What is the server's fault, by OpenTelemetry's conventions for gRPC servers.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


class Tracing(grpc.aio.ServerInterceptor):
    """Comes before Boundary, so that it sees the status that Boundary aborts with."""

    def __init__(self, service: str, methods: Mapping[str, Method]) -> None:
        self._service = service
        self._methods = methods
        self._running = telemetry.RPC_RUNNING.labels(service)
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Continuation,
        details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of an RPC, traced; made once for each."""
        kept = self._handlers.get(details.method)
        if kept is not None:
            return kept
        handler = await continuation(details)
        method = self._methods.get(details.method)
        if handler is None or method is None:
            return handler
        self._handlers[details.method] = traced = self._wrap(method, handler)
        return traced

    def _wrap(self, method: Method, handler: Handler) -> Handler:
        kind = kind_of(handler)
        return MAKERS[kind](self._traced(method, getattr(handler, kind)))

    def _traced(self, method: Method, inner: Callable[[Any, Context], Awaitable[Any]]) -> Any:
        name = method.path[1:]
        short = f"{method.descriptor.containing_service.name}.{method.name}"
        attributes = {"rpc.system": "grpc", "rpc.service": self._service, "rpc.method": method.name}

        async def traced(request: Any, context: Context) -> Any:
            began = time.perf_counter()
            service_name.set(self._service)  # gRPC starts each call in an empty context
            parent = None
            for key, value in context.invocation_metadata() or ():
                if key == "traceparent" and isinstance(value, str):
                    parent = value
            code = "CANCELLED"
            aborted: grpc.aio.AbortError | None = None
            answer = None
            self._running.inc()
            try:
                with telemetry.span(name, SpanKind.SERVER, telemetry.extract(parent), attributes) as span:
                    try:
                        answer = await inner(request, context)
                        code = "OK"
                    except grpc.aio.AbortError as stopped:
                        aborted, code = stopped, _name(context.code())
                    span.set_attribute("rpc.grpc.status_code", code)
                    if code in _FAULTS:
                        span.set_status(Status(StatusCode.ERROR, code))
            finally:
                self._running.dec()
                telemetry.answered(self._service, short, code, time.perf_counter() - began)
            if aborted is not None:
                raise aborted
            return answer

        return traced


def _name(code: Any) -> str:
    """gRPC gives its enumeration or the bare number."""
    if isinstance(code, grpc.StatusCode):
        return code.name
    return next((known.name for known in grpc.StatusCode if known.value[0] == code), "UNKNOWN")
