"""Imports from upload to the last row, and back."""

import asyncio

import grpc

from regulars.customers.v1 import customers_pb2
from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.customers_pb2_grpc import CustomersServiceStub
from regulars.customers.v1.orders_pb2 import GetCustomerMetricsRequest, ListOrdersRequest
from regulars.customers.v1.orders_pb2_grpc import OrdersServiceStub
from tests.customers.imports.shop import csv_of, errors, imports, over, people, run, start, upload
from tests.customers.shop import Shop, refused

HEADER = ("Customer ID", "Email", "First name", "Last name")


async def first_name(shop: Shop, email: str) -> str:
    found = await shop.customers.LookupCustomer(customers_pb2.LookupCustomerRequest(email=email))
    return found.first_name


async def test_customers_of_a_file_are_created(shop: Shop) -> None:
    done = await run(shop, people(20), source="shop")
    assert done.state == pb.IMPORT_STATE_COMPLETED
    assert done.progress.customers_created == 20
    assert done.progress.rows_done == done.progress.rows_total == 20
    found = await shop.search("p7@example.com")
    assert [each.first_name for each in found.customers] == ["First7"]
    assert [(each.name, each.external_id) for each in found.customers[0].sources] == [("shop", "p7")]


async def test_the_same_file_again_doubles_nothing(shop: Shop) -> None:
    first = await run(shop, people(30))
    second = await upload(shop, people(30))
    assert second.same_file_as == first.id
    await start(shop, second.id)
    done = await over(shop, second.id)
    assert (done.progress.customers_created, done.progress.customers_skipped) == (0, 30)
    third = await run(shop, people(30), duplicates=pb.DUPLICATE_POLICY_UPDATE)
    assert (third.progress.customers_updated, third.progress.customers_skipped) == (0, 30)


async def test_known_customers_are_changed_under_update_alone(shop: Shop) -> None:
    await shop.create(email="ann@example.com", first_name="Ann")
    rows = csv_of([HEADER, ("A", "ann@example.com", "Anna", "Lee"), ("B", "bob@example.com", "Bob", "")])
    skipped = await run(shop, rows)
    assert (skipped.progress.customers_created, skipped.progress.customers_skipped) == (1, 1)
    assert await first_name(shop, "ann@example.com") == "Ann"
    updated = await run(shop, rows, duplicates=pb.DUPLICATE_POLICY_UPDATE)
    assert updated.progress.customers_updated == 1
    assert await first_name(shop, "ann@example.com") == "Anna"


async def test_under_create_a_taken_e_mail_is_an_error_of_its_row(shop: Shop) -> None:
    await shop.create(email="ann@example.com")
    rows = csv_of([HEADER, ("A", "ann@example.com", "Anna", ""), ("B", "b@example.com", "B", "")])
    done = await run(shop, rows, duplicates=pb.DUPLICATE_POLICY_CREATE)
    assert (done.progress.customers_created, done.progress.rows_refused) == (1, 1)
    assert await errors(shop, done.id) == [(2, "Email", "EMAIL_TAKEN")]


async def test_a_person_twice_in_the_file_is_one_customer(shop: Shop) -> None:
    rows = csv_of(
        [
            HEADER,
            ("A", "a@example.com", "A", ""),
            ("B", "b@example.com", "B", ""),
            ("A", "a@example.com", "AA", ""),
        ]
    )
    done = await run(shop, rows, duplicates=pb.DUPLICATE_POLICY_UPDATE)
    assert (done.progress.customers_created, done.progress.customers_updated) == (2, 1)
    assert await first_name(shop, "a@example.com") == "AA"


async def test_wrong_rows_are_refused_one_by_one(shop: Shop) -> None:
    rows = csv_of([HEADER, ("A", "nonsense", "A", ""), ("B", "b@example.com", "B", ""), ("", "", "C", "")])
    done = await run(shop, rows)
    assert done.progress.customers_created == 1
    assert done.progress.rows_refused == 2
    found = await errors(shop, done.id)
    assert {row for row, _, _ in found} == {2, 4}
    content = b""
    async for part in imports(shop).DownloadImportErrors(pb.DownloadImportErrorsRequest(id=done.id)):
        content += part.data
    lines = content.decode("utf-8-sig").splitlines()
    assert lines[0].startswith("Customer ID,Email,First name,Last name,")
    assert [line.split(",")[0] for line in lines[1:]] == ["A", ""]


async def test_a_dry_run_counts_and_writes_nothing(shop: Shop) -> None:
    await shop.create(email="p1@example.com")
    made = await upload(shop, people(10) + csv_of([("p3", "p3@example.com", "Again", "")]))
    await start(shop, made.id, dry_run=True)
    dry = await over(shop, made.id)
    assert dry.dry_run
    assert (dry.progress.customers_created, dry.progress.customers_skipped) == (9, 2)
    found = await shop.search("p3@example.com")
    assert not found.customers
    await start(shop, made.id)
    real = await over(shop, made.id)
    assert not real.dry_run
    assert (real.progress.customers_created, real.progress.customers_skipped) == (9, 2)
    assert (await refused(start(shop, made.id))).reason == "IMPORT_DONE"


async def test_what_was_chosen_holds_for_the_next_file_of_the_source(shop: Shop) -> None:
    content = csv_of([("who", "mail to"), ("x", "x@example.com")])
    made = await upload(shop, content, source="crm")
    update = pb.UpdateImportRequest(id=made.id)
    change = getattr(update, "import")
    change.columns.add(index=0, target="customer.first_name")
    change.columns.add(index=1, target="customer.email")
    change.duplicates = pb.DUPLICATE_POLICY_UPDATE
    changed = await imports(shop).UpdateImport(update)
    assert [each.target for each in changed.columns] == ["customer.first_name", "customer.email"]
    await start(shop, made.id)
    await over(shop, made.id)
    assert await first_name(shop, "x@example.com") == "x"
    assert (await refused(imports(shop).UpdateImport(update))).reason == "IMPORT_STARTED"
    next_one = await upload(shop, csv_of([("who", "mail to"), ("y", "y@example.com")]), source="crm")
    assert [each.target for each in next_one.columns] == ["customer.first_name", "customer.email"]
    assert next_one.duplicates == pb.DUPLICATE_POLICY_UPDATE


async def test_the_preview_shows_rows_and_errors(shop: Shop) -> None:
    made = await upload(shop, people(150) + csv_of([("z", "nonsense", "", "")]))
    seen = await imports(shop).PreviewImport(pb.PreviewImportRequest(id=made.id))
    assert len(seen.rows) == 100
    assert list(seen.rows[0].cells) == ["p0", "p0@example.com", "First0", "Last0"]
    assert getattr(seen, "import").state == pb.IMPORT_STATE_PREVIEWED


async def test_what_is_no_such_file_is_refused_at_once(shop: Shop) -> None:
    assert (await refused(upload(shop, b""))).reason == "FILE_EMPTY"
    assert (await refused(upload(shop, b"\x00\xff" * 5000))).code == grpc.StatusCode.INVALID_ARGUMENT
    listed = await imports(shop).ListImports(pb.ListImportsRequest())
    assert not listed.imports


async def test_orders_find_their_customers_or_make_guests(shop: Shop) -> None:
    await run(shop, people(3), source="shop")
    content = csv_of(
        [
            ("Order ID", "Customer ID", "Email", "Order date", "Total", "Order status"),
            ("1", "p0", "", "2026-01-02", "10.00", "paid"),
            ("2", "p0", "", "2026-02-02", "20.00", "paid"),
            ("3", "", "new@example.com", "2026-02-03", "30.00", "paid"),
            ("4", "p1", "", "2026-02-03", "nothing", "paid"),
        ]
    )
    done = await run(shop, content, kind=pb.IMPORT_KIND_ORDERS, source="shop")
    assert (done.progress.orders_created, done.progress.rows_refused) == (3, 1)
    assert done.progress.customers_created == 1
    again = await run(shop, content, kind=pb.IMPORT_KIND_ORDERS, source="shop")
    assert (again.progress.orders_created, again.progress.orders_skipped) == (0, 3)
    calls = shop.calls(OrdersServiceStub)
    assert len((await calls.ListOrders(ListOrdersRequest())).orders) == 3
    undone = await undo(shop, done.id)
    assert undone.progress.conflicts == 0
    assert not (await calls.ListOrders(ListOrdersRequest())).orders
    person = await shop.customers.LookupCustomer(customers_pb2.LookupCustomerRequest(email="p0@example.com"))
    counted = await calls.GetCustomerMetrics(GetCustomerMetricsRequest(customer_id=person.id))
    assert counted.total_spent.amount_minor == 0
    assert (await run(shop, content, kind=pb.IMPORT_KIND_ORDERS, source="shop")).progress.orders_created == 3


async def test_customers_and_their_orders_come_in_one_file(shop: Shop) -> None:
    content = csv_of(
        [
            ("Customer ID", "Email", "Order ID", "Order date", "Total"),
            ("a", "a@example.com", "1", "2026-01-02", "10.00"),
            ("a", "a@example.com", "2", "2026-01-03", "15.00"),
            ("b", "b@example.com", "3", "2026-01-03", "5.00"),
        ]
    )
    done = await run(shop, content, kind=pb.IMPORT_KIND_CUSTOMERS_AND_ORDERS)
    assert (done.progress.customers_created, done.progress.orders_created) == (2, 3)
    undone = await undo(shop, done.id)
    assert undone.progress.conflicts == 0
    assert not (await shop.search("a@example.com")).customers


async def undo(shop: Shop, import_id: str) -> pb.Import:
    await imports(shop).UndoImport(pb.UndoImportRequest(id=import_id))
    done = await over(shop, import_id)
    assert done.state == pb.IMPORT_STATE_UNDONE
    return done


async def test_undo_takes_back_what_was_not_changed_since(shop: Shop) -> None:
    await shop.create(email="ann@example.com", first_name="Ann")
    await shop.create(email="eve@example.com", first_name="Eve")
    content = csv_of(
        [
            HEADER,
            ("A", "ann@example.com", "Anna", ""),
            ("A", "ann@example.com", "Annabel", ""),
            ("E", "eve@example.com", "Eva", ""),
            ("N", "new@example.com", "New", ""),
            ("N", "new@example.com", "Newer", ""),
            ("T", "touched@example.com", "Touched", ""),
        ]
    )
    done = await run(shop, content, duplicates=pb.DUPLICATE_POLICY_UPDATE)
    assert (done.progress.customers_created, done.progress.customers_updated) == (2, 4)
    for email in ("eve@example.com", "touched@example.com"):
        found = await shop.customers.LookupCustomer(customers_pb2.LookupCustomerRequest(email=email))
        await shop.customers.UpdateCustomer(
            customers_pb2.UpdateCustomerRequest(
                id=found.id, customer=customers_pb2.Customer(company="Lee Ltd")
            )
        )
    undone = await undo(shop, done.id)
    assert undone.progress.conflicts == 2
    assert {(row, reason) for row, _, reason in await errors(shop, done.id)} == {
        (4, "CHANGED_SINCE"),
        (7, "CHANGED_SINCE"),
    }
    assert await first_name(shop, "ann@example.com") == "Ann"
    assert await first_name(shop, "eve@example.com") == "Eva"
    lookup = shop.customers.LookupCustomer(customers_pb2.LookupCustomerRequest(email="new@example.com"))
    assert (await refused(lookup)).code == grpc.StatusCode.NOT_FOUND
    assert (
        await refused(imports(shop).UndoImport(pb.UndoImportRequest(id=done.id)))
    ).reason == "NOTHING_TO_UNDO"
    again = await run(shop, content)
    assert again.progress.customers_created == 1


async def test_customers_of_another_business_become_members(shop: Shop, other_shop: Shop) -> None:
    await other_shop.create(email="ann@example.com", first_name="Ann")
    done = await run(shop, csv_of([HEADER, ("A", "ann@example.com", "Anna", "")]))
    assert done.progress.customers_updated == 1
    assert await first_name(shop, "ann@example.com") == "Ann"
    undone = await undo(shop, done.id)
    assert undone.progress.conflicts == 0
    lookup = shop.customers.LookupCustomer(customers_pb2.LookupCustomerRequest(email="ann@example.com"))
    assert (await refused(lookup)).code == grpc.StatusCode.NOT_FOUND


async def test_two_imports_and_a_live_call_want_the_same_people(shop: Shop) -> None:
    first, second = await upload(shop, people(1500)), await upload(shop, people(1500, first=500))
    await start(shop, first.id)
    await start(shop, second.id)
    calls = shop.calls(CustomersServiceStub)

    async def create(i: int) -> bool:
        person = customers_pb2.Customer(email=f"p{i}@example.com")
        try:
            await calls.CreateCustomer(customers_pb2.CreateCustomerRequest(customer=person))
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.ALREADY_EXISTS:
                raise
            return True
        return False

    taken = sum([await create(i) for i in range(0, 2000, 50)])
    one, two = await asyncio.gather(over(shop, first.id), over(shop, second.id))
    assert one.state == two.state == pb.IMPORT_STATE_COMPLETED
    created = one.progress.customers_created + two.progress.customers_created
    assert created + (40 - taken) == 2000
    assert one.progress.rows_refused == two.progress.rows_refused == 0


async def test_a_cancelled_import_goes_on_where_it_stopped(shop: Shop) -> None:
    made = await upload(shop, people(6000))
    await start(shop, made.id)
    async for progress in imports(shop).WatchImport(pb.WatchImportRequest(id=made.id)):
        if progress.rows_done:
            break
    await imports(shop).CancelImport(pb.CancelImportRequest(id=made.id))
    stopped = await over(shop, made.id)
    if stopped.state == pb.IMPORT_STATE_COMPLETED:
        return  # it was quicker than we were
    assert stopped.state == pb.IMPORT_STATE_CANCELLED
    assert 0 < stopped.progress.rows_done < 6000
    await start(shop, made.id)
    done = await over(shop, made.id)
    assert done.progress.rows_done == done.progress.customers_created == 6000


async def test_nobody_uploads_for_a_business_that_is_not_theirs(shop: Shop, other_shop: Shop) -> None:
    refusal = await refused(upload(shop, people(1), business_id=other_shop.id))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "BUSINESS_NOT_FOUND")
    assert (await refused(upload(shop, people(1), "support"))).code == grpc.StatusCode.PERMISSION_DENIED
