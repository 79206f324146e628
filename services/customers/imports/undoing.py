"""Takes back what an import wrote, a batch of rows in one transaction each."""

from uuid import UUID

from libs.crypto import TenantKeys
from libs.jobs import Job
from libs.run.service import Runtime


class Undoing:
    """One try of taking one import back."""

    def __init__(self, rt: Runtime, job: Job) -> None:
        self.rt = rt
        self.job = job
        self.import_id = UUID(job.input["import"])
        self.keys: TenantKeys = rt.keys.for_tenant(job.tenant_id)

    async def run(self) -> None:
        """Goes on where it stopped."""
