"""RPCs about contact data of two customers."""

from uuid import UUID

from libs import caller as callers
from libs.rpc import Context
from libs.run.service import Runtime
from regulars.customers.v1 import contacts_pb2 as pb
from regulars.customers.v1.contacts_pb2_grpc import ContactsServiceServicer
from services.customers.contacts import queries, rules

# What is opened; the answer holds nothing of it.
OPENED = (
    "user.contact.address.street",
    "user.contact.email",
    "user.contact.phone_number",
    "user.demographic.date_of_birth",
    "user.name",
)


class ContactsService(ContactsServiceServicer):
    """See contacts.proto."""

    def __init__(self, rt: Runtime) -> None:
        self.rt = rt

    async def CompareContacts(
        self, request: pb.CompareContactsRequest, context: Context
    ) -> pb.CompareContactsResponse:
        business_id = UUID(request.business_id)
        keys = self.rt.keys.for_tenant(callers.current().tenant())
        with self.rt.audit.reading(*OPENED) as reading:
            async with self.rt.db.read() as tx:
                one, other = [
                    await queries.view(tx, keys, reading, business_id, UUID(each))
                    for each in (request.customer_id, request.other_customer_id)
                ]
                found = [await queries.traces(tx, keys, reading, each) for each in (one, other)]
        return pb.CompareContactsResponse(
            agreements=rules.agreements(*found),  # type: ignore[arg-type]  # the numbers of the enum
            same_customer=one.customer_id == other.customer_id,
        )
