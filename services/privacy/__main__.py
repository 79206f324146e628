"""The privacy service: `python -m services.privacy`."""

from libs.jobs_service import JobsServicer
from libs.run.service import Service, main
from regulars.privacy.v1.privacy_pb2_grpc import add_JobsServiceServicer_to_server

SERVICE = Service(
    name="privacy",
    servicers=lambda rt: [(add_JobsServiceServicer_to_server, JobsServicer(rt))],
)

if __name__ == "__main__":
    main(SERVICE)
