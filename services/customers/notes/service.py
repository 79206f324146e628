"""RPCs about notes."""

from uuid import UUID

from google.protobuf.empty_pb2 import Empty

from libs import caller as callers
from libs import idempotency
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import notes_pb2 as pb
from regulars.customers.v1.notes_pb2_grpc import NotesServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.notes import actions, queries, wire
from services.customers.profiles import queries as profiles

DEFAULT_PAGE = 50


class NotesService(NotesServiceServicer):
    """See notes.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateNote(self, request: pb.CreateNoteRequest, context: Context) -> pb.Note:
        text, note_id, customer_id = wire.text_of(request.note), new_id(), UUID(request.customer_id)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                business = await businesses.live(tx, request.business_id)
                customer = await profiles.one(tx, self._keys(), reading, customer_id, business.business_id)
                done = await idempotency.claim(tx, request, note_id)
                if not done:
                    await actions.create_note(tx, self._keys(), customer, note_id, request.note.kind, text)
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, done or note_id)
        return wire.note(view)

    async def GetNote(self, request: pb.GetNoteRequest, context: Context) -> pb.Note:
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                customer = await profiles.anywhere(tx, self._keys(), None, UUID(request.customer_id))
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, UUID(request.id))
        return wire.note(view)

    async def ListNotes(self, request: pb.ListNotesRequest, context: Context) -> pb.ListNotesResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                business_id = await businesses.named(tx, request.business_id)
                customer = await profiles.one(tx, self._keys(), None, UUID(request.customer_id), business_id)
                views = await queries.page(
                    tx,
                    self._keys(),
                    reading,
                    customer.customer_id,
                    business_id,
                    size + 1,
                    UUID(after[0]) if after else None,
                )
        more = len(views) > size
        return pb.ListNotesResponse(
            notes=map(wire.note, views[:size]),
            next_page_token=self.rt.pages.next(request, [str(views[size - 1].note_id)]) if more else "",
        )

    async def UpdateNote(self, request: pb.UpdateNoteRequest, context: Context) -> pb.Note:
        text, note_id = wire.text_of(request.note), UUID(request.id)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                customer = await profiles.anywhere(tx, self._keys(), reading, UUID(request.customer_id))
                before = await queries.one(
                    tx, self._keys(), reading, customer.customer_id, note_id, lock=True
                )
                await businesses.live(tx, str(before.business_id))
                if not await idempotency.claim(tx, request, note_id):
                    await actions.update_note(tx, self._keys(), customer, before, text, request.etag)
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, note_id)
        return wire.note(view)

    async def DeleteNote(self, request: pb.DeleteNoteRequest, context: Context) -> Empty:
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                customer = await profiles.anywhere(tx, self._keys(), None, UUID(request.customer_id))
                view = await queries.one(
                    tx, self._keys(), reading, customer.customer_id, UUID(request.id), lock=True
                )
                await businesses.live(tx, str(view.business_id))
                await actions.delete_note(tx, customer.customer_id, view.note_id)
        return Empty()

    async def ListNoteRevisions(
        self, request: pb.ListNoteRevisionsRequest, context: Context
    ) -> pb.ListNoteRevisionsResponse:
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                customer = await profiles.anywhere(tx, self._keys(), None, UUID(request.customer_id))
                view = await queries.one(tx, self._keys(), reading, customer.customer_id, UUID(request.id))
                found = await queries.revisions(tx, self._keys(), reading, customer.customer_id, view.note_id)
        return pb.ListNoteRevisionsResponse(revisions=map(wire.revision, found))

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    def _reading(self) -> Reading:
        return self.rt.audit.reading("user.content")
