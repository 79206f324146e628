"""Imports as a client sees them."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.imports_pb2_grpc import ImportsServiceStub
from tests.customers.shop import Shop

PIECE = 64 * 1024
OVER = (
    pb.IMPORT_STATE_COMPLETED,
    pb.IMPORT_STATE_CANCELLED,
    pb.IMPORT_STATE_FAILED,
    pb.IMPORT_STATE_UNDONE,
)


def imports(shop: Shop, *roles: str) -> ImportsServiceStub:
    """Calls about imports."""
    found: ImportsServiceStub = shop.calls(ImportsServiceStub, *roles)
    return found


def csv_of(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as a CSV file."""
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def people(count: int, first: int = 0, mark: str = "p") -> bytes:
    """A file of customers, each with an id, an e-mail and a name."""
    rows: list[Iterable[object]] = [("Customer ID", "Email", "First name", "Last name")]
    rows += [
        (f"{mark}{i}", f"{mark}{i}@example.com", f"First{i % 50}", f"Last{i % 70}")
        for i in range(first, first + count)
    ]
    return csv_of(rows)


async def upload(shop: Shop, content: bytes, *roles: str, **settings: Any) -> pb.Import:
    """An uploaded file."""
    settings.setdefault("file_name", "file.csv")

    async def parts() -> AsyncIterator[pb.UploadImportRequest]:
        yield pb.UploadImportRequest(settings=pb.UploadImportSettings(**settings))
        for i in range(0, len(content), PIECE):
            yield pb.UploadImportRequest(chunk=content[i : i + PIECE])

    made: pb.Import = await imports(shop, *roles).UploadImport(parts())
    return made


async def start(shop: Shop, import_id: str, **fields: Any) -> pb.Import:
    """A started import."""
    return await imports(shop).StartImport(pb.StartImportRequest(id=import_id, **fields))


async def over(shop: Shop, import_id: str, seconds: float = 60) -> pb.Import:
    """The import once nothing more happens by itself."""
    async with asyncio.timeout(seconds):
        async for progress in imports(shop).WatchImport(pb.WatchImportRequest(id=import_id), timeout=seconds):
            last = progress
    assert last.state in OVER, last
    return await imports(shop).GetImport(pb.GetImportRequest(id=import_id))


async def run(shop: Shop, content: bytes, **settings: Any) -> pb.Import:
    """A file, imported."""
    made = await upload(shop, content, **settings)
    await start(shop, made.id)
    return await over(shop, made.id)


async def errors(shop: Shop, import_id: str) -> list[tuple[int, str, str]]:
    """What was refused: (row, column, reason)."""
    found = await imports(shop).ListImportErrors(pb.ListImportErrorsRequest(id=import_id, page_size=1000))
    return [(each.row, each.column, each.reason) for each in found.errors]
