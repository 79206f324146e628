"""Clients at work: what they count, what an answer means to them, and how they ask until there is one."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
import httpx

from tests.customers.shop import refusal_of

AnswerT = TypeVar("AnswerT")
PATIENCE_SECONDS = 120
CALL_SECONDS = 5
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.4)
AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
AWAY_HTTP = {503, 504, 429}


class Again(Exception):
    """No answer, or one that says to try again."""


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """A refusal, by its reason."""

    reason: str


@dataclass(kw_only=True)
class Work:
    """Clients at work until `stop`. `repeats` are calls that had to be sent again, `under_way` those without answer."""

    acknowledged: int = 0
    repeats: int = 0
    under_way: int = 0
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Works until `stop`; every client finishes what it has begun. Raises what must not happen."""
        raise NotImplementedError

    async def more(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Waits until so many more calls were acknowledged."""
        wanted = self.acknowledged + count
        try:
            async with asyncio.timeout(seconds):
                while self.acknowledged < wanted:  # noqa: ASYNC110 – many tell it
                    await asyncio.sleep(0.02)
        except TimeoutError:
            left = wanted - self.acknowledged
            raise AssertionError(f"{type(self).__name__}: {left} of {count} calls have no answer") from None

    async def until_answered(self, ask: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """What `ask` gives, however often it has to be asked. Raises Refused."""
        self.under_way += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                for attempt in itertools.count():
                    try:
                        return await ask()
                    except Again:
                        self.repeats += 1
                        await asyncio.sleep(BACKOFF_SECONDS[min(attempt, len(BACKOFF_SECONDS) - 1)])
        finally:
            self.under_way -= 1
        raise AssertionError("unreachable")


async def called(call: Awaitable[AnswerT]) -> AnswerT:
    """The answer of a call over gRPC. Raises Again, Refused, AssertionError for what nobody may be answered."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _meaning(error) from error


def _meaning(error: grpc.aio.AioRpcError) -> Exception:
    """What grpc.aio says of a message that it could not send ("from Core") is no answer of ours."""
    reason = refusal_of(error).reason
    internal = error.code() in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    if (
        error.code() in AWAY
        or reason == "CONFLICT"
        or (internal and error.details() == "Internal error from Core")
    ):
        return Again()
    if internal or not reason:
        return AssertionError(f"{error.code()}: {error.details()}")
    return Refused(reason)


async def posted(call: Awaitable[httpx.Response]) -> dict[str, Any]:
    """The answer of a call over REST. Raises Again, Refused, AssertionError for what nobody may be answered."""
    try:
        answer = await call
    except httpx.TransportError as error:
        raise Again from error
    if answer.is_success:
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found
    if answer.headers.get("content-type") != "application/json":
        raise AssertionError(f"{answer.request.url.path}: {answer.status_code} {answer.text[:200]}")
    told = answer.json()["error"]
    if answer.status_code in AWAY_HTTP or told["reason"] == "CONFLICT":
        raise Again
    if answer.status_code >= 500:
        raise AssertionError(f"{answer.request.url.path}: {answer.status_code} {told}")
    raise Refused(told["reason"])
