"""The loyalty service: `python -m services.loyalty`."""

from libs.jobs_service import JobsServicer
from libs.run.service import Service, main
from regulars.loyalty.v1.loyalty_pb2_grpc import (
    add_JobsServiceServicer_to_server,
    add_LoyaltyServiceServicer_to_server,
)
from services.loyalty.consumers import HANDLERS
from services.loyalty.problems import PROBLEMS
from services.loyalty.service import LoyaltyService

SERVICE = Service(
    name="loyalty",
    servicers=lambda rt: [
        (add_LoyaltyServiceServicer_to_server, LoyaltyService(rt)),
        (add_JobsServiceServicer_to_server, JobsServicer(rt)),
    ],
    consumers=HANDLERS,
    problems=PROBLEMS,
)

if __name__ == "__main__":
    main(SERVICE)
