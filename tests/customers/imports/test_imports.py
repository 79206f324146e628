"""Imports from upload to the last row."""

from regulars.customers.v1 import imports_pb2 as pb
from tests.customers.imports.shop import people, run
from tests.customers.shop import Shop


async def test_customers_of_a_file_are_created(shop: Shop) -> None:
    done = await run(shop, people(20), source="shop")
    assert done.state == pb.IMPORT_STATE_COMPLETED
    assert done.progress.customers_created == 20
    assert done.progress.rows_done == done.progress.rows_total == 20
    found = await shop.search("p7@example.com")
    assert [each.first_name for each in found.customers] == ["First7"]
