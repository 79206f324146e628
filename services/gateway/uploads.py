"""Uploads: a body of any size becomes a stream of messages, passed on as fast as the service takes them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote_plus

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from libs import validation
from libs.boundary import CONTINUE_KEY
from libs.contracts import ContractError
from libs.problems import InvalidArgument, Problem
from libs.status import from_rpc_error
from services.gateway.calls import Call, Forward
from services.gateway.codec.faults import Faults
from services.gateway.codec.names import json_path
from services.gateway.exchange import ClientGone, Exchange
from services.gateway.forms import FilePart, Form, boundary_of
from services.gateway.problems import UnsupportedMediaType
from services.gateway.query import QueryReader, parameters
from services.gateway.requests import RequestReader, Test, idempotency_key
from services.gateway.routes import Binding
from services.gateway.upstreams import Upstream
from services.gateway.watch import Watch

MESSAGE_BYTES = 256 << 10
# What curl calls a body that nobody gave a type.
_NO_TYPE = "application/x-www-form-urlencoded"


class UploadReader(RequestReader):
    """Makes the messages of an upload: the settings first, then chunks.

    The contract: a `oneof` of one message (its fields are the query parameters) and the bytes that `body` names.
    """

    def __init__(self, binding: Binding, output_only: Test) -> None:
        super().__init__(binding, output_only)
        message = binding.method.input
        chunk = message.fields_by_name.get(binding.body)
        others = [field for field in message.fields if field.name != binding.body]
        if (
            chunk is None
            or chunk.type != FieldDescriptor.TYPE_BYTES
            or chunk.containing_oneof is None
            or len(others) != 1
            or others[0].message_type is None
            or binding.template.variables
        ):
            raise ContractError(
                f"{binding.method.path}: streams of requests are uploads over REST, or nothing"
            )
        self.takes_file = True
        self.names: Descriptor = others[0].message_type
        self._settings: str = others[0].name
        self._chunk: str = chunk.name
        self.parameters = parameters(self.names, {}, lambda _: False)
        self._of_query = QueryReader(self.parameters)
        self.has_request_id = "request_id" in self.names.fields_by_name

    def first(self, query: bytes, headers: Mapping[bytes, bytes], part: FilePart) -> Any:
        """The message with the settings. Raises InvalidArgument with every violation."""
        request = self._make()
        settings = getattr(request, self._settings)
        settings.SetInParent()
        faults = Faults()
        form = "&".join(f"{quote_plus(name)}={quote_plus(text)}" for name, text in part.fields)
        self._of_query.read(b"&".join([query, form.encode()]), settings, faults)
        self._bind_settings(settings, headers, faults)
        told = {"file_name": part.file_name, "content_type": part.content_type}
        for name, text in told.items():
            if name in self.names.fields_by_name and not getattr(settings, name):
                setattr(settings, name, text)
        try:
            validation.check(request)
        except InvalidArgument as refused:
            known = {violation.field for violation in faults.violations}
            for violation in self.flat(refused).violations:
                path = json_path(self.names, violation.field)
                if path not in known:
                    faults.add(path, violation.description, violation.reason)
        if faults:
            raise faults.problem()
        return request

    def chunk(self, content: bytes) -> Any:
        """A message with the next bytes."""
        return self._make(**{self._chunk: content})

    def flat(self, problem: Problem) -> Problem:
        """The refusal with the settings' fields as the client knows them: as parameters."""
        prefix = f"{self._settings}."
        problem.violations = tuple(
            replace(violation, field=violation.field.removeprefix(prefix)) for violation in problem.violations
        )
        if "field" in problem.metadata:
            problem.metadata["field"] = problem.metadata["field"].removeprefix(prefix)
        return problem

    def _bind_settings(self, settings: Any, headers: Mapping[bytes, bytes], faults: Faults) -> None:
        for name in ("If-Match", "If-None-Match"):
            if name.lower().encode() in headers:
                faults.add(name, "This call knows no precondition.", "PRECONDITION_NOT_SUPPORTED")
        key = headers.get(b"idempotency-key")
        if key is not None and self.has_request_id:
            text = idempotency_key(key)
            if settings.request_id and settings.request_id != text:
                faults.add("requestId", "Differs from the header Idempotency-Key.", "REQUEST_ID_DIFFERS")
            settings.request_id = text


class UploadCall(Call):
    """Forwards the uploads of one binding.

    No byte of a raw body is asked for before the service asks for it (libs/boundary says when); then each part is read
    when the service has taken the one before. The service's answer counts as soon as it is there, also while the
    client is still sending.
    """

    def __init__(self, binding: Binding, reader: UploadReader, upstream: Upstream) -> None:
        super().__init__(binding, reader, upstream)
        self._uploads = reader
        self.names = reader.names
        self._stream = upstream.upload(binding.method)

    async def upload(self, exchange: Exchange, forward: Forward) -> None:
        """Passes the body on and answers. Raises the service's Problem, BodyTimeout; ClientGone."""
        coding = exchange.headers.get(b"content-encoding", b"identity").lower()
        if coding != b"identity":
            raise UnsupportedMediaType("The body must not be compressed.", accepted="identity")
        parts = exchange.parts(forward.idle_seconds)
        boundary = boundary_of(exchange.headers)
        if boundary is None:
            given = exchange.headers.get(b"content-type", b"").decode("latin-1")
            part = FilePart([], "", "" if given.startswith(_NO_TYPE) else given)
        else:
            form = Form(boundary, parts)
            part, parts = await form.begin(), form.content()
        first = self._uploads.first(exchange.scope["query_string"], exchange.headers, part)
        try:
            raw = await self._sent(exchange, forward, first, parts)
        except Problem as problem:
            raise self._uploads.flat(problem) from None
        await self._answer(exchange, first, self._parse(raw))

    async def _sent(
        self, exchange: Exchange, forward: Forward, first: Any, parts: AsyncIterator[bytes]
    ) -> bytes:
        """The service's answer."""
        call = self._stream(timeout=forward.seconds, metadata=forward.metadata)
        answer = asyncio.ensure_future(_answered(call))
        pump = asyncio.ensure_future(self._pump(call, first, parts))
        watch: Watch | None = None
        try:
            await asyncio.wait({answer, pump}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                pump.result()  # its failure ends the call below
                watch = Watch(exchange.receive, call.cancel)
            return await answer
        except asyncio.CancelledError:
            if watch is not None and watch.gone:
                raise ClientGone from None
            raise
        finally:
            if watch is not None:
                watch.stop()
            pump.cancel()
            call.cancel()  # so that no service takes half a file for a whole one
            await asyncio.wait({answer, pump})

    async def _pump(self, call: Any, first: Any, parts: AsyncIterator[bytes]) -> None:
        try:
            await call.wait_for_connection()
            await _send(call, first)
            if CONTINUE_KEY not in dict(await call.initial_metadata()):
                return  # refused: the answer is on its way
            async for part in parts:
                for at in range(0, len(part), MESSAGE_BYTES):
                    await _send(call, self._uploads.chunk(part[at : at + MESSAGE_BYTES]))
            await call.done_writing()
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError):
            return  # it has ended; its answer says how


async def _send(call: Any, message: Any) -> None:
    """As `call.write`, which gives a call that the service has just ended INTERNAL as its status, for good."""
    await call._cython_call.send_serialized_message(message.SerializeToString())


async def _answered(call: Any) -> bytes:
    try:
        raw: bytes = await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    return raw
