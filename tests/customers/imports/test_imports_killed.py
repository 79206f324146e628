"""An import whose process is killed again and again writes every row once."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy import func, select

from libs.caller import Caller, acting_as
from regulars.customers.v1 import imports_pb2 as pb
from services.customers.imports.tables import import_rows
from services.customers.tables import customer_identifiers, memberships
from services.customers.timeline.tables import customer_changes
from tests.customers.imports.shop import imports, over, people, start, upload
from tests.customers.shop import Shop

ROWS, KILLS = 5000, 4


def children() -> list[int]:
    """Process ids of the imports that this process does."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"imports.child" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


async def test_a_killed_import_writes_every_row_once(shop: Shop) -> None:
    made = await upload(shop, people(ROWS))
    await start(shop, made.id)
    kills, seen = 0, -1
    async for progress in imports(shop).WatchImport(pb.WatchImportRequest(id=made.id), timeout=120):
        if progress.rows_done > seen and kills < KILLS:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
                kills += 1
            seen = progress.rows_done
    done = await over(shop, made.id)
    assert kills >= 2
    assert done.state == pb.IMPORT_STATE_COMPLETED
    assert done.progress.customers_created == done.progress.rows_done == ROWS
    tenant, here = shop.tenant.id, UUID(shop.id)
    rt = shop.tenant.stack.runtimes["customers"]
    with acting_as(Caller(tenant_id=tenant, subject="test", method="/test/Count")):
        async with rt.db.read() as tx:

            async def count(table: object, *where: object) -> int:
                return int(await tx.scalar(select(func.count()).select_from(table).where(*where)))  # type: ignore[arg-type]

            assert await count(memberships, memberships.c.business_id == here) == ROWS
            assert await count(customer_identifiers) == 2 * ROWS
            assert await count(customer_changes, customer_changes.c.business_id == here) == ROWS
            assert await count(import_rows, import_rows.c.import_id == UUID(made.id)) == ROWS


async def until(true: Callable[[], bool]) -> None:
    """Waits for what nobody tells us of: processes come and go."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_cancelled_import_takes_its_process_along(shop: Shop) -> None:
    made = await upload(shop, people(3000))
    await start(shop, made.id)
    await until(lambda: bool(children()))
    (pid,) = children()
    await imports(shop).CancelImport(pb.CancelImportRequest(id=made.id))
    await until(lambda: pid not in children())
    stopped = await over(shop, made.id)
    assert stopped.state in (pb.IMPORT_STATE_CANCELLED, pb.IMPORT_STATE_COMPLETED)
