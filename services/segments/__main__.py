"""The segments service: `python -m services.segments`."""

from libs.jobs_service import JobsServicer
from libs.run.service import Service, main
from regulars.segments.v1.segments_pb2_grpc import add_JobsServiceServicer_to_server

SERVICE = Service(
    name="segments",
    servicers=lambda rt: [(add_JobsServiceServicer_to_server, JobsServicer(rt))],
)

if __name__ == "__main__":
    main(SERVICE)
