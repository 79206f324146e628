"""RPCs about saved views."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from libs import caller as callers
from libs import idempotency, masking
from libs.audit import Reading
from libs.crypto import TenantKeys
from libs.ids import new_id
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import views_pb2 as pb
from regulars.customers.v1.views_pb2_grpc import ViewsServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.views import actions, queries, wire

DEFAULT_PAGE = 50


class ViewsService(ViewsServiceServicer):
    """See views.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CreateView(self, request: pb.CreateViewRequest, context: Context) -> pb.SavedView:
        view_id, paths = new_id(), wire.paths_of(request.view, FieldMask())
        self._refuse_masked(request.view, paths)
        name, search = wire.name_of(request.view), wire.search_of(request.view)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                here = (await businesses.live(tx, request.business_id)).business_id
                done = await idempotency.claim(tx, request, view_id)
                if not done:
                    await actions.create_view(
                        tx, self._keys(), reading, here, view_id, name, request.view.shared, search
                    )
                view = await queries.one(tx, self._keys(), reading, done or view_id)
                return wire.saved_view(view, queries.principal(tx))

    async def ListViews(self, request: pb.ListViewsRequest, context: Context) -> pb.ListViewsResponse:
        size = request.page_size or DEFAULT_PAGE
        after = self.rt.pages.after(request)
        with self._reading() as reading:
            async with self.rt.db.read() as tx:
                here = await businesses.named(tx, request.business_id)
                before = UUID(after[0]) if after else None
                views = await queries.page(tx, self._keys(), reading, here, size + 1, before)
                principal = queries.principal(tx)
        more = len(views) > size
        return pb.ListViewsResponse(
            views=[wire.saved_view(view, principal) for view in views[:size]],
            next_page_token=self.rt.pages.next(request, [str(views[size - 1].view_id)]) if more else "",
        )

    async def UpdateView(self, request: pb.UpdateViewRequest, context: Context) -> pb.SavedView:
        view, paths = request.view, wire.paths_of(request.view, request.update_mask)
        self._refuse_masked(view, paths)
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                before = await queries.one(tx, self._keys(), reading, UUID(request.id), lock=True)
                await businesses.live(tx, str(before.business_id))
                await actions.update_view(
                    tx,
                    self._keys(),
                    reading,
                    before,
                    wire.name_of(view) if "name" in paths else before.name,
                    view.shared if "shared" in paths else before.shared,
                    wire.search_of(view) if "search" in paths else before.search,
                    request.etag,
                )
                after = await queries.one(tx, self._keys(), reading, before.view_id)
                return wire.saved_view(after, queries.principal(tx))

    async def DeleteView(self, request: pb.DeleteViewRequest, context: Context) -> Empty:
        with self._reading() as reading:
            async with self.rt.db.tx() as tx:
                view = await queries.one(tx, self._keys(), reading, UUID(request.id), lock=True)
                await businesses.live(tx, str(view.business_id))
                await actions.delete_view(tx, view, request.etag)
        return Empty()

    def _keys(self) -> TenantKeys:
        return self.rt.keys.for_tenant(callers.current().tenant())

    @contextmanager
    def _reading(self) -> Iterator[Reading]:
        """A view may hold names, and is about no customer: opening it leaves no entry."""
        with self.rt.audit.reading("user.content") as reading:
            yield reading
            reading.only(())

    @staticmethod
    def _refuse_masked(view: pb.SavedView, paths: frozenset[str]) -> None:
        masking.refuse_masked(callers.current(), pb.SavedView.DESCRIPTOR, wire.touched(view, paths))
