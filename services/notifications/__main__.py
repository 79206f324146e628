"""The notifications service: `python -m services.notifications`."""

from libs.jobs_service import JobsServicer
from libs.run.service import Service, main
from regulars.notifications.v1.notifications_pb2_grpc import add_JobsServiceServicer_to_server

SERVICE = Service(
    name="notifications",
    servicers=lambda rt: [(add_JobsServiceServicer_to_server, JobsServicer(rt))],
)

if __name__ == "__main__":
    main(SERVICE)
