"""Request and reply on core NATS: another door to an RPC, which sees what gRPC's own door lets through."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.rpc.status_pb2 import Status
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from libs import loops, status
from libs.boundary import USER_KEY, bearer
from libs.problems import Code, PermissionDenied, Problem
from libs.rpc import Handler
from libs.tokens import Tokens

log = logging.getLogger(__name__)

# Headers of a reply. The body is the RPC's answer if the number is 0, else a google.rpc.Status.
STATUS, MESSAGE = "grpc-status", "grpc-message"
AT_ONCE = 64  # requests in work per door; more wait in NATS's client
CONNECTING_SECONDS = 0.2
MAX_MESSAGE = 200


@dataclass(frozen=True, slots=True)
class Ingested:
    """An RPC that is also served by request and reply on `<subject>.<tenant>`.

    `method` is its path ("/regulars.customers.v1.OrdersService/RecordOrders"); it takes and gives one message.
    """

    subject: str
    method: str


class AnswerTooLarge(Problem):
    """The work is done, and its answer is larger than NATS carries."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "ANSWER_TOO_LARGE"
    message = "The request was done; its answer is too large for NATS. Send fewer records at once."


class Door:
    """Answers the requests of one subject, after the RPC has: so after its commit.

    Headers are the RPC's metadata (`authorization`, `x-request-id`, `traceparent`). Several processes share the
    requests. `error` is None while all goes well.
    """

    def __init__(
        self,
        nc: Client,
        service: str,
        ingested: Ingested,
        handler: Callable[[str], Awaitable[Handler]],
        tokens: Tokens,
        *,
        prefix: str = "",
    ) -> None:
        self.error: str | None = None
        self.name = ingested.subject
        self._nc = nc
        self._service = service
        self._ingested = ingested
        self._subject = f"{prefix}{ingested.subject}.*"
        self._handler = handler
        self._tokens = tokens
        self._room = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Serves until cancelled. The client subscribes again by itself when NATS comes back."""
        while not self._nc.is_connected:  # noqa: ASYNC110 – the client tells nobody
            await asyncio.sleep(CONNECTING_SECONDS)
        handler = await self._handler(self._ingested.method)
        answer: Any = handler.unary_unary

        async def came(request: Msg) -> None:
            await self._room.acquire()
            task = asyncio.create_task(self._serve(answer, request))
            self._running.add(task)
            task.add_done_callback(self._done)

        self._subscription = await self._nc.subscribe(self._subject, queue=self._service, cb=came)
        try:
            await asyncio.Event().wait()
        finally:
            self._subscription = None

    async def drain(self, seconds: float) -> None:
        """Takes no more requests, and gives those that came `seconds` to be answered."""
        subscription, self._subscription = self._subscription, None
        with contextlib.suppress(NatsError, TimeoutError):
            async with asyncio.timeout(seconds):
                if subscription is not None:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                while self._running:
                    await asyncio.wait(self._running)
                await self._nc.flush()
        await loops.end(*self._running)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        self._room.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a reply was lost", exc_info=error, extra={"subject": self._ingested.subject})

    async def _serve(self, answer: Callable[[bytes, Any], Awaitable[bytes]], request: Msg) -> None:
        metadata = {key.lower(): value for key, value in (request.headers or {}).items()}
        try:
            await self._own_tenant(request.subject, metadata)
            body = await answer(request.data, _Context(metadata))
            if len(body) > self._nc.max_payload:
                raise AnswerTooLarge
        except Problem as problem:
            await self._refuse(request, status.to_status(problem))
        except _Aborted as aborted:
            await self._refuse(request, aborted.status)
        else:
            await self._reply(request, body, {STATUS: "0"})

    async def _own_tenant(self, subject: str, metadata: Mapping[str, str]) -> None:
        """Raises PermissionDenied unless the subject ends with the tenant of the token; Unauthenticated."""
        identity = await self._tokens.user(bearer(metadata.get(USER_KEY)))
        if subject.rpartition(".")[2] != str(identity.tenant_id):
            raise PermissionDenied("The subject is another tenant's.")

    async def _refuse(self, request: Msg, refusal: Status) -> None:
        plain = "".join(c if c.isprintable() else " " for c in refusal.message[:MAX_MESSAGE])
        headers = {STATUS: str(refusal.code), MESSAGE: plain}
        await self._reply(request, refusal.SerializeToString(), headers)

    async def _reply(self, request: Msg, body: bytes, headers: dict[str, str]) -> None:
        if request.reply:
            await self._nc.publish(request.reply, body, headers=headers)


class _Aborted(grpc.aio.AbortError):
    def __init__(self, status: Status) -> None:
        super().__init__(status.message)
        self.status = status


class _Context:
    """What of a gRPC context our interceptors and handlers use."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = tuple(metadata.items())
        self._code: grpc.StatusCode | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def time_remaining(self) -> None:
        """No deadline: the server's own holds."""

    def code(self) -> grpc.StatusCode | None:
        return self._code

    def peer(self) -> str:
        return "nats"

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._code = code
        for key, value in trailing_metadata:
            if key == status.DETAILS_KEY:
                raise _Aborted(Status.FromString(value))
        raise _Aborted(Status(code=code.value[0], message=details))
