"""RPCs about exports."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from libs import caller as callers
from libs import idempotency
from libs.audit import Reading
from libs.caller import Caller, acting_as
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.downloads import DISPOSITION_KEY, disposition
from libs.ids import new_id
from libs.problems import InvalidArgument
from libs.rpc import Context
from libs.run.service import Runtime
from libs.sealed_files import OpenFile
from regulars.customers.v1 import exports_pb2 as pb
from regulars.customers.v1.exports_pb2_grpc import ExportsServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.exports import actions, columns, links, queries, wire
from services.customers.exports.contents import Contents, joined
from services.customers.exports.problems import ExportNotReady
from services.customers.exports.queries import Known
from services.customers.exports.walk import Walk, Wanted, measure
from services.customers.exports.writing import Writer, writer_of
from services.customers.search import wire as search_wire
from services.customers.views import queries as views

DEFAULT_PAGE = 50
LINK_FOR = timedelta(hours=1)
# Bytes of one message of a stream.
MESSAGE_BYTES = 64 * 1024
# How many customers more of a stream are noted at once: so many at most are not told of if its process dies.
NOTED_EACH = 10_000


class ExportsService(ExportsServiceServicer):
    """See exports.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def ExportCustomers(
        self, request: pb.ExportCustomersRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        rt, export_id = self.rt, new_id()
        with self._reading() as reading:
            async with rt.db.tx() as tx:
                wanted = await self._wanted(tx, reading, request)
                size = await measure(rt, tx, wanted)
                await actions.begin(tx, self._keys(), export_id, wanted, size, streamed=True)
                created_at = tx.now
        writer = writer_of(wanted.form, wanted.columns, wire.in_order(wanted, wanted.masked))
        masked = wire.in_order(wanted, wanted.masked)
        await context.send_initial_metadata(_headers(export_id, created_at, writer, masked))
        contents, whole, noted = Contents(Walk(rt, wanted), writer), False, 0

        async def told() -> None:
            nonlocal noted
            if contents.customers >= noted + NOTED_EACH:
                noted = contents.customers
                async with rt.db.tx() as tx:
                    await actions.note_progress(tx, export_id, noted)

        try:
            parts = joined(contents.parts(told=told), MESSAGE_BYTES)
            async for body in _bodies(parts, writer.content_type):
                yield body
            whole = True
        finally:
            await asyncio.shield(self._end(export_id, contents, whole))

    async def _end(self, export_id: UUID, contents: Contents, whole: bool) -> None:
        async with self.rt.db.tx() as tx:
            if whole:
                await actions.complete(tx, export_id, contents.customers, contents.size)
            else:
                outcome = pb.EXPORT_STATE_FAILED
                await actions.stop(tx, export_id, outcome, contents.customers, contents.size)

    async def CreateExport(self, request: pb.CreateExportRequest, context: Context) -> pb.Export:
        rt, export_id = self.rt, new_id()
        with self._reading() as reading:
            async with rt.db.tx() as tx:
                wanted = await self._wanted(tx, reading, request)
                size = await measure(rt, tx, wanted)
                done = await idempotency.claim(tx, request, export_id)
                if not done:
                    await actions.begin(tx, self._keys(), export_id, wanted, size, streamed=False)
                return self._message(tx, await queries.one(tx, self._keys(), reading, done or export_id))

    async def GetExport(self, request: pb.GetExportRequest, context: Context) -> pb.Export:
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                known = await queries.one(tx, self._keys(), reading, UUID(request.id))
                return self._message(tx, known)

    async def ListExports(self, request: pb.ListExportsRequest, context: Context) -> pb.ListExportsResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                here = await businesses.named(tx, request.business_id)
                before = after[0] if after else None
                found = await queries.page(tx, self._keys(), reading, here, size + 1, before)
                exports = [wire.export(each, tx.now) for each in found[:size]]
        more = len(found) > size
        return pb.ListExportsResponse(
            exports=exports,
            next_page_token=self.rt.pages.next(request, [found[size - 1].row.export_id]) if more else "",
        )

    async def CancelExport(self, request: pb.CancelExportRequest, context: Context) -> pb.Export:
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                known = await queries.one(tx, self._keys(), reading, UUID(request.id), lock=True)
                await actions.cancel(tx, self.rt.files, known)
                return self._message(tx, await queries.one(tx, self._keys(), reading, UUID(request.id)))

    async def DownloadExport(
        self, request: pb.DownloadExportRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        async with aclosing(self._download(UUID(request.id), callers.current(), context)) as bodies:
            async for body in bodies:
                yield body

    async def DownloadExportByLink(
        self, request: pb.DownloadExportByLinkRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        export_id = UUID(request.id)
        tenant_id = links.tenant_of(self.rt.keys, request.signature, export_id)
        caller = wire.by_link(tenant_id, export_id, callers.current())
        async with aclosing(self._download(export_id, caller, context)) as bodies:
            async for body in bodies:
                yield body

    async def _download(self, export_id: UUID, caller: Caller, context: Context) -> AsyncGenerator[HttpBody]:
        with acting_as(caller):
            known, files = await self._files(export_id)
        writer = _writer_of(known)
        await context.send_initial_metadata(
            _headers(export_id, known.row.created_at, writer, known.row.masked_columns)
        )
        async for body in _bodies(joined(_chunks(files), MESSAGE_BYTES), writer.content_type):
            yield body

    async def _files(self, export_id: UUID) -> tuple[Known, list[OpenFile]]:
        """An export that the caller may read, with its file, noted as read."""
        rt, files = self.rt, []
        with self._reading() as itself:
            async with rt.db.tx() as tx:
                known = await queries.one(tx, self._keys(), itself, export_id)
                if not wire.ready(known, tx.now):
                    raise ExportNotReady
                with rt.audit.reading(*_categories(known)) as reading:
                    for piece in await queries.pieces(tx, export_id):
                        async with rt.files.open(tx, reading, piece.file_id) as file:
                            files.append(file)
                await actions.note_download(tx, export_id)
        return known, files

    async def _wanted(self, tx: Tx, reading: Reading, request: wire.Request) -> Wanted:
        """What a request asks for. Raises everything that is wrong with it."""
        asked, search = request.business_id, request.search
        if request.view_id:
            if request.HasField("search"):
                raise InvalidArgument.of("search", "give either a view or a search")
            view = await views.one(tx, self._keys(), reading, UUID(request.view_id))
            if asked and asked != str(view.business_id):
                raise InvalidArgument.of("view_id", "is a view of another business")
            asked, search = str(view.business_id), wire.search_of(view.search)
        search = wire.kept(search)
        search_wire.refuse_masked_filters(tx.caller, search)
        business = await businesses.business(tx, await businesses.named(tx, asked))
        definitions = await businesses.definitions(tx, business.business_id)
        return wire.wanted(business, request.format, search, request.columns, definitions, tx.caller.masks)

    def _message(self, tx: Tx, known: Known) -> pb.Export:
        """The message, with a link if there is a file."""
        if not wire.ready(known, tx.now):
            return wire.export(known, tx.now)
        until = min(tx.now + LINK_FOR, known.row.expires_at).replace(microsecond=0)
        link = links.signed(self.rt.keys, tx.tenant_id, known.row.export_id, until)
        return wire.export(known, tx.now, link, until)

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        """A search may hold names, and is about no customer: opening it leaves no entry."""
        with self.rt.audit.reading("user.content") as reading:
            yield reading
            reading.only(())


def _headers(
    export_id: UUID, created_at: datetime, writer: Writer, masked: Sequence[str]
) -> Sequence[tuple[str, str]]:
    """What goes ahead of a file."""
    name = wire.file_name(created_at, writer.extension)
    ahead = [(DISPOSITION_KEY, disposition(name)), ("x-export-id", str(export_id))]
    return [*ahead, ("x-masked-columns", ",".join(masked))] if masked else ahead


def _writer_of(known: Known) -> Writer:
    return writer_of(known.row.format, (), ())


def _categories(known: Known) -> set[str]:
    """The data categories that an export's file shows."""
    every = columns.known("", {})
    shown = set(known.row.columns) - set(known.row.masked_columns)
    return {found for name in shown & set(every) for found in every[name].categories}


async def _chunks(files: Sequence[OpenFile]) -> AsyncIterator[bytes]:
    for file in files:
        async for chunk in file.chunks():
            yield chunk


async def _bodies(parts: AsyncIterator[bytes], content_type: str) -> AsyncIterator[HttpBody]:
    """The parts as messages; the first one names the type, even of an empty file."""
    first = True
    async with aclosing(parts) as those:  # type: ignore[type-var]  # a generator
        async for part in those:
            yield HttpBody(content_type=content_type if first else "", data=part)
            first = False
    if first:
        yield HttpBody(content_type=content_type)
