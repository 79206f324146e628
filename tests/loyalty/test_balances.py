"""Opening balances from a file: each row once with its own expiry, and back as far as they were not spent."""

import asyncio
import os
import signal
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update

from libs import clock
from libs.ids import new_id
from regulars.customers.v1 import imports_pb2 as pb
from regulars.loyalty.v1 import balances_pb2
from regulars.loyalty.v1 import ledger_pb2 as ledger_pb
from regulars.loyalty.v1 import tiers_pb2 as tiers
from regulars.loyalty.v1.balances_pb2_grpc import BalancesServiceStub
from regulars.loyalty.v1.loyalty_pb2 import GetMembershipRequest
from regulars.loyalty.v1.loyalty_pb2_grpc import LoyaltyServiceStub
from regulars.loyalty.v1.tiers_pb2_grpc import TiersServiceStub
from services.loyalty.balances import actions
from services.loyalty.balances.rules import Told
from services.loyalty.balances.tables import imported_balances
from services.loyalty.tables import memberships
from tests.customers.imports.shop import csv_of, errors, imports, over, run, start, upload
from tests.customers.imports.test_imports_killed import children
from tests.customers.shop import Shop, refused
from tests.loyalty.members import balance, faults, has, in_ledger, join, ledger, transactions, until
from tests.loyalty.test_merges import home

HEADER = ("Email", "Points", "Valid until", "Earned at", "Lifetime points", "Reason", "Booking number")
POINTS = {"kind": pb.IMPORT_KIND_POINTS_BALANCES, "source": "old program"}
FAR = (clock.now() + timedelta(days=400)).date()


async def undone(shop: Shop, import_id: str) -> pb.Import:
    await imports(shop).UndoImport(pb.UndoImportRequest(id=import_id))
    return await over(shop, import_id)


async def test_members_bring_points_with_their_own_expiry(shop: Shop) -> None:
    await shop.tenant.calls(TiersServiceStub, businesses=[shop.id]).UpdateTierConfiguration(
        tiers.UpdateTierConfigurationRequest(
            configuration=tiers.TierConfiguration(
                tiers=[tiers.Tier(name="BRONZE"), tiers.Tier(name="GOLD", points=5000)]
            )
        )
    )
    ann = await join(shop, email="ann@example.com")
    bob = await join(shop, email="bob@example.com", phone="+12125550100")
    rows = csv_of(
        [
            ("Regulars ID", "Phone", *HEADER),
            ("", "", "ann@example.com", "1250", FAR, "2026-01-15", "6000", "from the old cards", ""),
            ("", "", "ann@example.com", "50", "", "", "", "", ""),
            ("", "", "Ann@example.com", "50", "", "", "", "", ""),  # said twice: two bookings
            (bob, "", "", "70", FAR, "", "", "", "B-1"),
            (bob, "", "", "70", FAR, "", "", "", "B-1"),  # one booking, told twice
            ("", "+12125550100", "ann@example.com", "1", "", "", "", "", ""),
            ("", "", "nobody@example.com", "1", "", "", "", "", ""),
            ("", "", "ann@example.com", "1", "2020-01-01", "", "", "", ""),
            ("", "", "ann@example.com", "0", "", "", "", "", ""),
            ("", "", "ann@example.com", "many", "", "2999-01-01", "", "", ""),
            ("", "", "", "5", "", "", "", "", ""),
            ("", "", "ann@example.com", "5", "", "2020-01-01", "", "", ""),  # lapsed by the program's rule
        ]
    )
    denied = await refused(upload(shop, rows, "marketer", **POINTS))
    assert denied.metadata["permission"] == "loyalty.adjust"
    made = await upload(shop, rows, **POINTS)
    assert [each.target for each in made.columns] == [
        *("customer.id", "customer.phone", "customer.email", "balance.points", "balance.expires_at"),
        *("balance.earned_at", "balance.lifetime_points", "balance.reason", "balance.reference"),
    ]
    shown = await imports(shop).PreviewImport(pb.PreviewImportRequest(id=made.id))
    assert (shown.rows_valid, shown.rows_refused) == (8, 4)
    await start(shop, made.id, dry_run=True)
    tried = await over(shop, made.id)
    assert (tried.progress.balances_created, tried.progress.rows_refused) == (4, 7)
    assert not await transactions(shop, ann)

    await start(shop, made.id)
    done = await over(shop, made.id)
    assert done.state == pb.IMPORT_STATE_COMPLETED
    counts = done.progress
    assert (counts.balances_created, counts.balances_skipped, counts.rows_refused) == (4, 1, 7)
    assert await errors(shop, made.id) == [
        (7, "Email", "CUSTOMER_AMBIGUOUS"),
        (8, "Email", "CUSTOMER_NOT_FOUND"),
        (9, "Valid until", "ALREADY_EXPIRED"),
        (10, "Points", "INT64_RANGE"),
        (11, "Points", "NUMBER"),
        (11, "Earned at", "TIME_RANGE"),
        (12, "Email", "REQUIRED"),
        (13, "Earned at", "ALREADY_EXPIRED"),
    ]
    theirs = await balance(shop, ann)
    assert (theirs.balance, theirs.lifetime) == (1350, 6000)
    first = (await transactions(shop, ann))[-1]
    assert (first.type, first.points, first.source) == (
        *(ledger_pb.TRANSACTION_TYPE_ADJUST, 1250),
        f"import:{made.id}",
    )
    assert (first.reason, first.lifetime_points, first.opening_balance) == ("from the old cards", 6000, 0)
    assert (await balance(shop, bob)).balance == 70
    members: LoyaltyServiceStub = shop.calls(LoyaltyServiceStub)
    assert (await members.GetMembership(GetMembershipRequest(customer_id=ann))).tier.tier == "GOLD"

    again = await run(shop, rows, **POINTS)
    assert again.same_file_as == made.id
    assert (again.progress.balances_created, again.progress.balances_skipped) == (0, 5)
    request = ledger_pb.RedeemPointsRequest(customer_id=bob, points=25)
    await ledger(shop).RedeemPoints(request)
    back = await undone(shop, made.id)
    assert (back.state, back.progress.conflicts) == (pb.IMPORT_STATE_UNDONE, 1)
    listed = await imports(shop).ListImportErrors(pb.ListImportErrorsRequest(id=made.id, page_size=100))
    (spent,) = (each for each in listed.errors if each.customer_id)
    assert (spent.row, spent.reason, spent.customer_id) == (5, "POINTS_SPENT", bob)
    assert spent.expected.startswith("25 of its 70 points")
    gone, theirs = await balance(shop, bob), await balance(shop, ann)
    assert (gone.balance, theirs.balance, theirs.lifetime) == (0, 0, 0)
    last = (await transactions(shop, bob))[0]
    assert (last.type, last.points, last.source) == (
        *(ledger_pb.TRANSACTION_TYPE_REVERSE, -45),
        f"import:{made.id}",
    )
    assert last.reverses_id
    assert not await faults(shop)


async def test_points_of_a_killed_import_come_once(shop: Shop) -> None:
    members, lots = 30, 90
    ids = await asyncio.gather(*(join(shop, email=f"m{i}@example.com") for i in range(members)))
    rows = csv_of([("Email", "Points", "Valid until")])
    rows += csv_of(
        (f"m{i}@example.com", 7, FAR + timedelta(days=n)) for n in range(lots) for i in range(members)
    )
    made = await upload(shop, rows, **POINTS)
    await start(shop, made.id)
    kills = 0
    for least in (0, 1000):  # loyalty has rows of which customers has not counted all
        await until(partial(_given, shop, made.id, least))
        for pid in children():
            os.kill(pid, signal.SIGKILL)
            kills += 1
    done = await over(shop, made.id)
    assert kills >= 1
    assert (done.state, done.progress.balances_created) == (pb.IMPORT_STATE_COMPLETED, members * lots)
    for customer_id in ids:
        assert (await balance(shop, customer_id)).balance == lots * 7
    assert not await faults(shop)


async def _given(shop: Shop, import_id: str, more_than: int) -> bool:
    mine = imported_balances.c.tenant_id == shop.tenant.id, imported_balances.c.import_id == UUID(import_id)
    wanted = select(func.count()).select_from(imported_balances).where(*mine)
    return bool(await in_ledger(shop, lambda tx: tx.scalar(wanted)) > more_than)


async def test_a_row_waits_until_loyalty_has_heard_of_its_customer(shop: Shop) -> None:
    ann = await join(shop, email="ann@example.com")

    async def hide(present: bool) -> None:
        mine = memberships.c.tenant_id == shop.tenant.id, memberships.c.customer_id == UUID(ann)
        await in_ledger(shop, lambda tx: tx.execute(update(memberships).where(*mine).values(present=present)))

    await hide(False)
    rows = csv_of([("Email", "Points"), ("ann@example.com", "7")])
    made = await upload(shop, rows, **POINTS)
    await start(shop, made.id)
    await until(lambda: _running(shop, made.id))
    await hide(True)
    assert (await over(shop, made.id)).progress.balances_created == 1
    await has(shop, ann, 7)


async def _running(shop: Shop, import_id: str) -> bool:
    found = await imports(shop).GetImport(pb.GetImportRequest(id=import_id))
    return bool(found.state == pb.IMPORT_STATE_RUNNING)


async def test_rows_are_told_again_and_nothing_comes_after_the_taking_back(shop: Shop) -> None:
    ann = await join(shop)
    calls: BalancesServiceStub = shop.calls(BalancesServiceStub)
    here: dict[str, Any] = {"import_id": str(new_id()), "source": "old"}

    def request(*rows: int, **more: Any) -> balances_pb2.ImportBalancesRequest:
        some = [balances_pb2.ImportedBalance(row=row, customer_id=ann, points=10) for row in rows]
        return balances_pb2.ImportBalancesRequest(balances=some, **here, **more)

    answers = await asyncio.gather(*(calls.ImportBalances(request(2, 3)) for _ in range(6)))
    assert len({tuple(each.transaction_id for each in answer.results) for answer in answers}) == 1
    assert (await balance(shop, ann)).balance == 20
    unknown = balances_pb2.ImportedBalance(row=4, customer_id=str(new_id()), points=1)
    strange = balances_pb2.ImportedBalance(row=5, customer_id=ann, points=1, program="Another")
    (one, two) = (
        await calls.ImportBalances(balances_pb2.ImportBalancesRequest(balances=[unknown, strange], **here))
    ).results
    assert one.outcome == balances_pb2.IMPORT_BALANCE_OUTCOME_MEMBER_UNKNOWN
    assert (two.field, two.reason) == ("program", "PROGRAM_NOT_FOUND")
    ask = balances_pb2.UndoBalancesRequest(import_id=here["import_id"], limit=1)
    backs = await asyncio.gather(*(calls.UndoBalances(ask) for _ in range(4)))
    assert {(each.balances[0].row, each.balances[0].points) for each in backs} == {(3, 10)}
    assert (await balance(shop, ann)).balance == 10
    assert (await refused(calls.ImportBalances(request(6)))).reason == "IMPORT_UNDONE"
    assert not await faults(shop)


async def test_points_that_a_merge_moved_on_are_taken_back_there(shop: Shop) -> None:
    house, merge, import_id = await home(shop.tenant.stack), new_id(), new_id()
    told = [
        Told(
            row=row,
            customer_id=house.customers[0],
            program="",
            points=100,
            expires_at=None,
            earned_at=None,
            lifetime_points=0,
            reason="",
            reference="",
        )
        for row in (2, 3)
    ]
    keys = house.loyalty.keys.for_tenant(shop.tenant.id)  # nothing is sealed without a reason
    await house.do(
        lambda tx, _: actions.import_balances(tx, keys, house.business, import_id, "old program", told)
    )
    await house.hear([house.merged(0, 1, merge)])
    await house.redeem(1, 130)
    back = await house.do(lambda tx, _: actions.undo_balances(tx, house.business, import_id, 0, 500))
    assert [(each.row, each.customer_id, each.taken, each.spent) for each in back] == [
        (3, house.customers[1], 70, 30),
        (2, house.customers[1], 0, 100),
    ]
    await house.hear([house.unmerged(0, 1, merge)])
    assert await house.balances() == ([0, 0], [])
