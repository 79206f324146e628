"""The customers service: `python -m services.customers`."""

from libs.jobs_service import JobsServicer
from libs.run.service import Service, main
from regulars.customers.v1.activities_pb2_grpc import add_ActivitiesServiceServicer_to_server
from regulars.customers.v1.addresses_pb2_grpc import add_AddressesServiceServicer_to_server
from regulars.customers.v1.businesses_pb2_grpc import add_BusinessesServiceServicer_to_server
from regulars.customers.v1.contacts_pb2_grpc import add_ContactsServiceServicer_to_server
from regulars.customers.v1.customers_pb2_grpc import add_CustomersServiceServicer_to_server
from regulars.customers.v1.exports_pb2_grpc import add_ExportsServiceServicer_to_server
from regulars.customers.v1.imports_pb2_grpc import add_ImportsServiceServicer_to_server
from regulars.customers.v1.jobs_pb2_grpc import add_JobsServiceServicer_to_server
from regulars.customers.v1.me_pb2_grpc import add_MeServiceServicer_to_server
from regulars.customers.v1.notes_pb2_grpc import add_NotesServiceServicer_to_server
from regulars.customers.v1.orders_pb2_grpc import add_OrdersServiceServicer_to_server
from regulars.customers.v1.search_pb2_grpc import add_SearchServiceServicer_to_server
from regulars.customers.v1.tenants_pb2_grpc import add_TenantsServiceServicer_to_server
from regulars.customers.v1.timeline_pb2_grpc import add_TimelineServiceServicer_to_server
from regulars.customers.v1.views_pb2_grpc import add_ViewsServiceServicer_to_server
from services.customers.activities.jobs import PERIODIC
from services.customers.activities.service import ActivitiesService
from services.customers.addresses.service import AddressesService
from services.customers.businesses.service import BusinessesService
from services.customers.contacts.service import ContactsService
from services.customers.exports.jobs import JOBS as EXPORT_JOBS
from services.customers.exports.jobs import PERIODIC as EXPORT_PERIODIC
from services.customers.exports.service import ExportsService
from services.customers.imports.jobs import JOBS as IMPORTS
from services.customers.imports.jobs import PERIODIC as IMPORT_PERIODIC
from services.customers.imports.service import ImportsService
from services.customers.me.service import MeService
from services.customers.notes.service import NotesService
from services.customers.orders.service import INGESTED, OrdersService
from services.customers.problems import PROBLEMS
from services.customers.profiles.jobs import JOBS
from services.customers.profiles.service import CustomersService
from services.customers.search.service import SearchService
from services.customers.tenants.service import TenantsService
from services.customers.timeline.consumers import HANDLERS
from services.customers.timeline.service import TimelineService
from services.customers.views.service import ViewsService

SERVICE = Service(
    name="customers",
    servicers=lambda rt: [
        (add_TenantsServiceServicer_to_server, TenantsService(rt)),
        (add_BusinessesServiceServicer_to_server, BusinessesService(rt)),
        (add_CustomersServiceServicer_to_server, CustomersService(rt)),
        (add_ContactsServiceServicer_to_server, ContactsService(rt)),
        (add_AddressesServiceServicer_to_server, AddressesService(rt)),
        (add_NotesServiceServicer_to_server, NotesService(rt)),
        (add_MeServiceServicer_to_server, MeService(rt)),
        (add_OrdersServiceServicer_to_server, OrdersService(rt)),
        (add_ViewsServiceServicer_to_server, ViewsService(rt)),
        (add_SearchServiceServicer_to_server, SearchService(rt)),
        (add_ActivitiesServiceServicer_to_server, ActivitiesService(rt)),
        (add_TimelineServiceServicer_to_server, TimelineService(rt)),
        (add_ExportsServiceServicer_to_server, ExportsService(rt)),
        (add_ImportsServiceServicer_to_server, ImportsService(rt)),
        (add_JobsServiceServicer_to_server, JobsServicer(rt)),
    ],
    consumers=HANDLERS,
    jobs={**JOBS, **IMPORTS, **EXPORT_JOBS},
    periodic=[*PERIODIC, *EXPORT_PERIODIC, *IMPORT_PERIODIC],
    problems=PROBLEMS,
    ingested=INGESTED,
)

if __name__ == "__main__":
    main(SERVICE)
