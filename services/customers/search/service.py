"""RPCs that find customers."""

from google.protobuf.field_mask_pb2 import FieldMask

from libs import caller as callers
from libs.crypto import Kind, live_versions
from libs.problems import Faults
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import search_pb2 as pb
from regulars.customers.v1.search_pb2_grpc import SearchServiceServicer
from services.customers.businesses import queries as businesses
from services.customers.profiles import queries as profiles
from services.customers.profiles import wire as profiles_wire
from services.customers.search import finding, rules, tokens, wire
from services.customers.search.finding import Looking
from services.customers.search.ordering import phases
from services.customers.search.queries import Scope

DEFAULT_PAGE = 50


class SearchService(SearchServiceServicer):
    """See search.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def SearchCustomers(
        self, request: pb.SearchCustomersRequest, context: Context
    ) -> pb.SearchCustomersResponse:
        caller, faults = callers.current(), Faults()
        fields = profiles_wire.check_read_mask(request.read_mask)
        size = request.page_size or DEFAULT_PAGE
        position = self.rt.pages.after(request)
        columns = wire.columns(request, faults)
        kinds, hidden = wire.compared(caller)
        wire.refuse_masked_filters(caller, request)
        keys = self.rt.keys.for_tenant(caller.tenant())
        with self.rt.audit.reading(*profiles_wire.categories(fields)) as reading:
            async with self.rt.db.read() as tx:
                business = await businesses.business(tx, await businesses.named(tx, request.business_id))
                live = await live_versions(tx)
                version = live.current[Kind.SEARCH]
                definitions = (
                    await businesses.definitions(tx, business.business_id) if request.attributes else {}
                )
                given = wire.filters(request, definitions, faults)
                faults.refuse()
                if request.city.strip():
                    given["city"] = tokens.of_city(tokens.with_version(keys, version), request.city)
                looking = Looking(
                    tx=tx,
                    keys=keys,
                    live=live,
                    reading=reading,
                    scope=Scope(business.business_id, version, given),
                    query=rules.query_of(request.query),
                    compared=kinds,
                    country=business.country,
                )
                if columns:
                    answer = await finding.by_columns(looking, phases(columns), size, position)
                else:
                    answer = await finding.by_relevance(looking, size)
                opened = reading if profiles_wire.opens_sealed(fields) else None
                views = await profiles.many(tx, keys, opened, answer.ids, business.business_id)
                reading.only(views)
        return pb.SearchCustomersResponse(
            customers=[profiles_wire.customer(views[id_], fields) for id_ in answer.ids if id_ in views],
            next_page_token=self.rt.pages.next(request, answer.position) if answer.position else "",
            total_size=answer.total,
            total_estimated=answer.estimated,
            truncated=answer.truncated,
            not_compared=FieldMask(paths=hidden) if hidden and request.query.strip() else None,
        )
