"""Any RPC by its descriptor, and what became of it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from libs import contracts, status
from libs.contracts import Method
from libs.problems import Code
from tests.platform import Stack
from tests.walls import requests

METHODS: Mapping[str, Method] = dict(sorted(contracts.methods().items()))
SECONDS = 20
# Only a fault of ours answers like this.
FAULTS = {
    Code.INTERNAL,
    Code.UNAVAILABLE,
    Code.DEADLINE_EXCEEDED,
    Code.UNIMPLEMENTED,
    Code.RESOURCE_EXHAUSTED,
}


@dataclass(frozen=True)
class Outcome:
    """The answers of an RPC, or its refusal (then `code` is not None)."""

    code: Code | None
    reason: str = ""
    text: str = ""
    answers: tuple[Message, ...] = ()

    def __str__(self) -> str:
        told = self.text if self.code else " ".join(str(answer) for answer in self.answers)
        return f"{self.code or 'OK'} {self.reason} {told}"


async def call(stack: Stack, method: Method, request: Message | bytes, *metadata: tuple[str, str]) -> Outcome:
    """Calls an RPC of any kind with one request."""
    raw = request if isinstance(request, bytes) else request.SerializeToString()
    channel = stack.channel(method.service_name)
    options: dict[str, Any] = {
        "request_serializer": bytes,
        "response_deserializer": GetMessageClass(method.output).FromString,
    }
    kind = f"{_shape(method.client_streaming)}_{_shape(method.server_streaming)}"
    rpc = getattr(channel, kind)(method.path, **options)
    running = rpc(
        _stream(method, raw) if method.client_streaming else raw, metadata=metadata, timeout=SECONDS
    )
    try:
        answers = [answer async for answer in running] if method.server_streaming else [await running]
    except grpc.aio.AioRpcError as error:
        problem = status.from_rpc_error(error)
        violations = " ".join(f"{v.field}={v.reason}" for v in problem.violations)
        facts = " ".join(f"{key}={value}" for key, value in sorted(problem.metadata.items()))
        return Outcome(problem.code, problem.reason, f"{problem.message} {facts} {violations}")
    return Outcome(None, answers=tuple(answers))


def _shape(streaming: bool) -> str:
    return "stream" if streaming else "unary"


async def _stream(method: Method, raw: bytes) -> AsyncIterator[bytes]:
    yield raw
    if method.name in requests.FOLLOWS:
        yield requests.FOLLOWS[method.name]().SerializeToString()


def bearer(token: str) -> tuple[str, str]:
    """The metadata of a user's token."""
    return "authorization", f"Bearer {token}"
