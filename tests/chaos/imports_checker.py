"""What must hold of imports once it is quiet: every row of the file was written once, and told once."""

from collections import Counter
from uuid import UUID

from libs.caller import Caller, acting_as
from libs.envelope import Letter
from regulars.customers.v1 import imports_pb2 as pb
from services.customers.imports.rules import Outcome
from services.customers.orders import metrics
from tests.chaos.imports import Place
from tests.chaos.purchases_checker import database_of
from tests.chaos.settling import handled_once
from tests.flows.looking import letters, rows
from tests.platform import Stack

PEOPLE = ("customers.customers", "customers.memberships", "loyalty.memberships")


async def written(stack: Stack, place: Place, people: int, orders: int) -> list[str]:
    """Faults after files are in: `people` customers with two identifiers each, and `orders` orders of theirs."""
    tenant, found = place.tenant, []
    for each, wanted in place.done:
        told = each.progress
        counts = (told.rows_done, told.customers_created + told.orders_created, told.rows_refused)
        skipped = told.customers_skipped + told.orders_skipped + told.customers_updated + told.orders_updated
        if each.state != pb.IMPORT_STATE_COMPLETED or counts != (wanted, wanted, 0) or skipped:
            found.append(f"import {each.id} ended as {told}")
        query = (
            "select count(*) as n, count(*) filter (where customer_outcome = %s or order_outcome = %s) as made, "
            "count(distinct coalesce(order_id, customer_id)) as things "
            "from customers.import_rows where tenant_id = %s and import_id = %s"
        )
        made = int(Outcome.CREATED)
        (row,) = await rows(stack, query, made, made, tenant.id, each.id)
        if set(row.values()) != {wanted}:
            found.append(f"import_rows of {each.id}: {row}, the file has {wanted}")
    for table in (*PEOPLE, "customers.customer_search"):
        found += await _counted(stack, place, table, "customer_id", people)
    found += await _counted(stack, place, "customers.customer_identifiers", "customer_id", people, times=2)
    found += await _counted(stack, place, "customers.customer_changes", "customer_id", people)
    found += await _counted(stack, place, "customers.orders", "external_id", orders)
    found += await _recount(stack, place)
    sent = await letters(stack, tenant.id)
    found += _told_once(sent, "customers.customer.created", people)
    found += _told_once(sent, "customers.order.recorded", orders)
    found += _told_once(sent, "customers.import.completed", len(place.done))
    return found + await handled_once(stack, tenant.id, sent)


async def taken_back(stack: Stack, place: Place, people: int, orders: int) -> list[str]:
    """Faults after all imports were undone: nothing is left of them, and that was told once."""
    found = [
        f"import {each.id} ended as {each.progress}"
        for each, _ in place.done
        if each.state != pb.IMPORT_STATE_UNDONE or each.progress.conflicts
    ]
    for table, where in (
        ("import_rows", ""),
        ("customer_identifiers", ""),
        ("customer_search", ""),
        ("orders", ""),
        ("customer_metrics", ""),
        ("customers", "and deleted_at is null"),
        ("memberships", "and deleted_at is null"),
    ):
        query = f"select count(*) as n from customers.{table} where tenant_id = %s {where}"
        (row,) = await rows(stack, query, place.tenant.id)
        if row["n"]:
            found.append(f"{row['n']} rows are left in {table}")
    found += await _recount(stack, place)
    sent = await letters(stack, place.tenant.id)
    found += _told_once(sent, "customers.customer.created", people)
    found += _told_once(sent, "customers.customer.deleted", people)
    found += _told_once(sent, "customers.order.cancelled", orders)
    found += _told_once(sent, "customers.import.undone", len(place.done))
    return found + await handled_once(stack, place.tenant.id, sent)


async def _counted(
    stack: Stack, place: Place, table: str, what: str, wanted: int, times: int = 1
) -> list[str]:
    query = f"select count(*) as n, count(distinct {what}) as things from {table} where tenant_id = %s"
    (row,) = await rows(stack, query, place.tenant.id)
    if (row["n"], row["things"]) != (wanted * times, wanted):
        return [f"{table}: {row['n']} rows of {row['things']}, the file has {wanted}"]
    return []


async def _recount(stack: Stack, place: Place) -> list[str]:
    """The product's own recount finds nothing."""
    async with database_of(stack) as database:
        with acting_as(Caller(tenant_id=place.tenant.id, subject="checker")):
            async with database.read() as tx:
                return [str(tuple(row)) for row in await metrics.differences(tx, UUID(place.shop))]


def _told_once(sent: list[Letter], subject: str, wanted: int) -> list[str]:
    """Each aggregate has exactly one event of the kind on the stream."""
    told = Counter(letter.headers["ce-subject"] for letter in sent if letter.subject == subject)
    if (len(told), told.total()) != (wanted, wanted):
        return [f"{subject}: {told.total()} events of {len(told)} aggregates, wanted {wanted}"]
    return []
