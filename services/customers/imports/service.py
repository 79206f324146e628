"""RPCs about imports."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO, TypeVar
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody

from libs import caller as callers
from libs import clock, downloads, idempotency
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.db import Tx
from libs.ids import new_id
from libs.problems import PermissionDenied
from libs.rpc import Context
from libs.run.service import Runtime
from libs.sealed_files import FileGone, Written
from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.imports_pb2_grpc import ImportsServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.imports import actions, error_file, queries, reading, rules, wire
from services.customers.imports.mapping import guess
from services.customers.imports.previews import preview
from services.customers.imports.queries import Import, Plan
from services.customers.imports.template import template
from services.customers.imports.work import facts_of
from services.customers.problems import UploadBroken

DEFAULT_PAGE = 50
MOST_BYTES = 4 * 1024**3
SAMPLES = 100
WATCH_SECONDS = 0.5
_MAY = {
    rules.CUSTOMERS: ("customers.write",),
    rules.ORDERS: ("orders.write",),
    rules.CUSTOMERS_AND_ORDERS: ("customers.write", "orders.write"),
    rules.BALANCES: ("loyalty.adjust",),
}
_TEMPLATES = {
    rules.CUSTOMERS: "customers template",
    rules.ORDERS: "orders template",
    rules.CUSTOMERS_AND_ORDERS: "customers and orders template",
    rules.BALANCES: "points template",
}
FoundT = TypeVar("FoundT")


class ImportsService(ImportsServiceServicer):
    """See imports.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def UploadImport(
        self, requests: AsyncIterator[pb.UploadImportRequest], context: Context
    ) -> pb.Import:
        settings = await _settings(requests)
        kind = settings.kind or rules.CUSTOMERS
        self._may(kind)
        async with self.rt.db.read() as tx:
            here = (await businesses.live(tx, settings.business_id)).business_id
        written = await self.rt.files.write("import", _chunks(requests), MOST_BYTES)
        try:
            return await self._uploaded(settings, kind, here, written)
        except _Done as done:
            await self.rt.files.discard(written)
            return await self.GetImport(pb.GetImportRequest(id=str(done.import_id)), context)
        except BaseException:
            await asyncio.shield(self.rt.files.discard(written))
            raise

    async def _uploaded(
        self, settings: pb.UploadImportSettings, kind: int, here: UUID, written: Written
    ) -> pb.Import:
        """Keeps an upload once it is clear that it can be read."""
        import_id, keys = new_id(), self._keys()
        source = settings.source.strip() or wire.DEFAULT_SOURCE
        with self._reading() as seen:
            async with self.rt.db.read() as tx:
                business = await businesses.business(tx, here)
                attributes = await businesses.definitions(tx, here)

            def look(file: BinaryIO) -> Plan:
                layout = reading.detect(
                    file, file_name=settings.file_name, content_type=settings.content_type
                )
                names, samples = _columns(file, layout)
                mapping = guess(kind, names, samples, attributes, country=business.country)
                return Plan(settings.file_name, layout, mapping)

            plan = await self._looked(self.rt.files.unkept(written).sync(), look)
            async with self.rt.db.tx() as tx:
                done = await idempotency.claim(tx, settings, import_id)
                if done is not None:
                    raise _Done(done)
                business = await businesses.live(tx, str(here))
                digest = actions.columns_digest(keys, [c.name for c in plan.mapping.columns])
                saved = await queries.saved(tx, here, source, kind, digest)
                if saved is not None:
                    plan = actions.with_saved(plan, saved)
                await self.rt.files.keep(tx, written)
                await actions.create_import(
                    tx,
                    keys,
                    business,
                    import_id,
                    source,
                    await self.rt.files.get(tx, written.file_id),
                    plan,
                    wire.policy(settings.duplicates, saved.duplicates if saved else None),
                    wire.match_by(settings.match_by, saved.match_by if saved else None),
                )
                return await self._message(tx, await queries.one(tx, keys, seen, import_id))

    async def GetImport(self, request: pb.GetImportRequest, context: Context) -> pb.Import:
        with self._reading() as seen:
            async with self.rt.db.read() as tx:
                return await self._message(tx, await queries.one(tx, self._keys(), seen, UUID(request.id)))

    async def ListImports(self, request: pb.ListImportsRequest, context: Context) -> pb.ListImportsResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        with self._reading() as seen:
            async with self.rt.db.read() as tx:
                here = await businesses.named(tx, request.business_id)
                before = UUID(after[0]) if after else None
                found = await queries.page(tx, self._keys(), seen, here, size + 1, before)
        more = len(found) > size
        now = clock.now()
        return pb.ListImportsResponse(
            imports=[wire.imported(each, now, whole=False) for each in found[:size]],
            next_page_token=self.rt.pages.next(request, [str(found[size - 1].row.import_id)]) if more else "",
        )

    async def UpdateImport(self, request: pb.UpdateImportRequest, context: Context) -> pb.Import:
        given, keys = getattr(request, "import"), self._keys()
        paths = wire.paths_of(given, request.update_mask)
        with self._reading() as seen:
            async with self.rt.db.read() as tx:
                before = await queries.one(tx, keys, seen, UUID(request.id))
                business = await businesses.business(tx, before.row.business_id)
                attributes = await businesses.definitions(tx, before.row.business_id)
            plan = before.plan
            if "layout" in paths:
                layout = wire.layout_of(given.layout, plan.layout)
                if layout != plan.layout:

                    def look(file: BinaryIO) -> Plan:
                        names, samples = _columns(file, layout)
                        mapping = guess(before.row.kind, names, samples, attributes, country=business.country)
                        return replace(plan, layout=layout, mapping=mapping)

                    plan = await self._looked(await self._file(seen, before), look)
            mapping = plan.mapping
            if "columns" in paths:
                mapping = replace(mapping, columns=wire.columns_of(given.columns, mapping.columns))
            if "constants" in paths:
                mapping = replace(mapping, constants={each.target: each.value for each in given.constants})
            width = len(plan.mapping.columns)
            if {"columns", "constants"} & paths:
                mapping.check(attributes, width, "import")
            async with self.rt.db.tx() as tx:
                now = await queries.one(tx, keys, seen, before.row.import_id, lock=True)
                await actions.change_plan(
                    tx,
                    keys,
                    now,
                    replace(plan, mapping=mapping),
                    (given.source.strip() or wire.DEFAULT_SOURCE) if "source" in paths else now.row.source,
                    (given.duplicates or rules.SKIP) if "duplicates" in paths else now.row.duplicates,
                    (given.match_by or rules.ANY) if "match_by" in paths else now.row.match_by,
                    request.etag or str(before.row.version),
                )
                return await self._message(tx, await queries.one(tx, keys, seen, before.row.import_id))

    async def PreviewImport(
        self, request: pb.PreviewImportRequest, context: Context
    ) -> pb.PreviewImportResponse:
        _see_all()
        with self.rt.audit.reading("user.content") as seen:
            async with self.rt.db.read() as tx:
                mine = await queries.one(tx, self._keys(), seen, UUID(request.id))
                business = await businesses.business(tx, mine.row.business_id)
                attributes = await businesses.definitions(tx, mine.row.business_id)
            facts = facts_of(self._keys(), mine.row.source, business, attributes)
            file = await self._file(seen, mine)
            rows = await self._looked(file, lambda each: preview(each, mine, facts))
            async with self.rt.db.tx() as tx:
                await actions.note_preview(tx, mine)
                now = await queries.one(tx, self._keys(), seen, mine.row.import_id)
                message = await self._message(tx, now)
        response = pb.PreviewImportResponse(
            rows=rows,
            rows_valid=sum(not row.errors for row in rows),
            rows_refused=sum(bool(row.errors) for row in rows),
        )
        getattr(response, "import").CopyFrom(message)
        return response

    async def StartImport(self, request: pb.StartImportRequest, context: Context) -> pb.Import:
        with self._reading() as seen:
            async with self.rt.db.tx() as tx:
                mine = await self._locked(tx, seen, request.id)
                self._may(mine.row.kind)
                await businesses.live(tx, str(mine.row.business_id))
                attributes = await businesses.definitions(tx, mine.row.business_id)
                mine.plan.mapping.check(attributes, len(mine.plan.mapping.columns), "import")
                await actions.start_import(tx, self._keys(), self.rt.files, mine, dry_run=request.dry_run)
                return await self._again(tx, seen, mine)

    async def CancelImport(self, request: pb.CancelImportRequest, context: Context) -> pb.Import:
        with self._reading() as seen:
            async with self.rt.db.tx() as tx:
                mine = await self._locked(tx, seen, request.id)
                await actions.cancel_import(tx, self.rt.files, mine, delete_file=request.delete_file)
                return await self._again(tx, seen, mine)

    async def UndoImport(self, request: pb.UndoImportRequest, context: Context) -> pb.Import:
        with self._reading() as seen:
            async with self.rt.db.tx() as tx:
                mine = await self._locked(tx, seen, request.id)
                self._may(mine.row.kind)
                await actions.undo_import(tx, mine)
                return await self._again(tx, seen, mine)

    async def ListImportErrors(
        self, request: pb.ListImportErrorsRequest, context: Context
    ) -> pb.ListImportErrorsResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        with self._reading() as seen:
            async with self.rt.db.read() as tx:
                mine = await queries.one(tx, self._keys(), seen, UUID(request.id))
                found = await queries.errors(tx, mine.row.import_id, size + 1, after or ())
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self.rt.pages.next(request, [last.row, last.place])
        return pb.ListImportErrorsResponse(
            errors=[wire.error(row, mine.plan) for row in found[:size]], next_page_token=token
        )

    async def DownloadImportErrors(
        self, request: pb.DownloadImportErrorsRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        _see_all()
        with self.rt.audit.reading("user.content") as seen:
            async with self.rt.db.read() as tx:
                mine = await queries.one(tx, self._keys(), seen, UUID(request.id))
            source = await self._file(seen, mine)
        stem = mine.plan.file_name.rpartition(".")[0] or mine.plan.file_name or "import"
        try:
            await downloads.named(context, f"{stem} errors.{error_file.form_of(mine)}")
            async for part in error_file.parts(self.rt.db, mine, source):
                yield part
        finally:
            source.close()

    async def WatchImport(
        self, request: pb.WatchImportRequest, context: Context
    ) -> AsyncIterator[pb.ImportProgress]:
        while True:
            with self._reading() as seen:
                async with self.rt.db.read() as tx:
                    mine = await queries.one(tx, self._keys(), seen, UUID(request.id))
            yield wire.progress(mine, clock.now())
            if wire.ended(mine.state):
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def GetImportTemplate(
        self, request: pb.GetImportTemplateRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        form = wire.FORMAT_NAMES.get(request.format, "csv")
        form = form if form == "xlsx" else "csv"
        kind = request.kind or rules.CUSTOMERS
        async with self.rt.db.read() as tx:
            here = await businesses.named(tx, request.business_id)
            attributes = await businesses.definitions(tx, here)
        content = await asyncio.to_thread(template, kind, form, attributes)
        await downloads.named(context, f"{_TEMPLATES[kind]}.{form}")
        yield error_file.body(form, content)

    async def _locked(self, tx: Tx, seen: Reading, import_id: str) -> Import:
        return await queries.one(tx, self._keys(), seen, UUID(import_id), lock=True)

    async def _again(self, tx: Tx, seen: Reading, mine: Import) -> pb.Import:
        return await self._message(tx, await queries.one(tx, self._keys(), seen, mine.row.import_id))

    async def _message(self, tx: Tx, mine: Import) -> pb.Import:
        same = await queries.same_file(tx, mine.row)
        return wire.imported(mine, clock.now(), same_file_as=same)

    async def _file(self, seen: Reading, mine: Import) -> BinaryIO:
        if mine.row.file_expires_at is None:
            raise FileGone
        async with self.rt.files.open(self.rt.db, seen, mine.row.file_id) as file:
            return file.sync()

    async def _looked(self, file: BinaryIO, look: Callable[[BinaryIO], FoundT]) -> FoundT:
        """What `look` finds in a file, beside the event loop. Closes the file."""
        try:
            return await asyncio.to_thread(look, file)
        finally:
            file.close()

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        """The name of a file and of its columns are about no customer: opening them leaves no entry."""
        with self.rt.audit.reading("user.content") as seen:
            yield seen
            seen.only(())

    @staticmethod
    def _may(kind: int) -> None:
        """Raises PermissionDenied unless the caller may write what the file holds."""
        for permission in _MAY[kind]:
            callers.current().require(permission)


class _Done(Exception):
    """This upload was done already, as this import."""

    def __init__(self, import_id: UUID) -> None:
        super().__init__()
        self.import_id = import_id


def _see_all() -> None:
    """Raises PermissionDenied for callers from whom some category of personal data is kept."""
    if callers.current().masks:
        raise PermissionDenied("A file shows all of its columns; the caller may not see all.")


def _columns(file: BinaryIO, layout: reading.Layout) -> tuple[list[str], list[list[str]]]:
    names = reading.columns(file, layout)
    samples = [list(each.cells) for each in itertools.islice(reading.records(file, layout), SAMPLES)]
    return names, samples


async def _settings(requests: AsyncIterator[pb.UploadImportRequest]) -> pb.UploadImportSettings:
    async for first in requests:
        if first.WhichOneof("part") == "settings":
            return first.settings
        break
    raise UploadBroken


async def _chunks(requests: AsyncIterator[pb.UploadImportRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise UploadBroken
        yield request.chunk
