"""That the checkers see: a fault is planted for each promise, and each is told. The last that is done with a stack."""

import copy
import itertools
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

from libs.envelope import Letter
from libs.ids import new_id
from regulars.customers.v1 import timeline_pb2 as timeline
from tests.chaos import house, imports_checker, settling, timeline_checker
from tests.chaos.house import AtWork, Seen
from tests.chaos.ledger_checker import ADJUST, CAPTURED, EARN, EXPIRE, REDEEM, REVERSE, TRANSFER, Kept
from tests.chaos.points import Points
from tests.chaos.points_checker import UNDONE, USED
from tests.chaos.purchases import PENDING, Buyer
from tests.flows.looking import Row, rows

FAR = "9999-01-01"


async def every_checker_sees(at_work: AtWork) -> None:
    """Plants faults and looks whether each is told. Fails if one is not."""
    for sees in (
        _of_leftovers,
        _of_people,
        _of_imports,
        _of_points,
        _of_households,
        _of_timelines,
        _of_purchases,
    ):
        await sees(at_work)


def _told(found: Iterable[str], *wanted: str) -> None:
    told = "\n".join(found)
    missing = [each for each in wanted if each not in told]
    assert not missing, f"not seen: {missing}"


async def _of_leftovers(at_work: AtWork) -> None:
    """An event that waits, and one that was given up."""
    what = "tenant_id, consumer, event_id, subject, headers, body, attempts"
    values = f"'{new_id()}', 'nobody', '{new_id()}', 'planted', '{{}}', '', 1"
    for query in (
        f"insert into loyalty.parked ({what}, waits_for, parked_at, due_at) "
        f"values ({values}, '', now(), '{FAR}') returning 1 as n",
        f"insert into customers.dead_letters ({what}, error_reason, error_detail, failed_at) "
        f"values ({values}, '', '', now()) returning 1 as n",
    ):
        await rows(at_work.stack, query)
    told = await settling.leftover(at_work.stack)
    _told(told, "loyalty.parked holds 1 planted", "customers.dead_letters holds 1 planted")


async def _of_people(at_work: AtWork) -> None:
    """A lost customer, a lost change and a customer too many."""
    work = at_work.people
    lost, changed, doubled = list(work.people.values())[:3]
    work.people[changed.id] = replace(changed, version=changed.version + 1)
    del work.people[doubled.id]
    nobody = str(new_id())
    work.people[nobody] = replace(lost, id=nobody)
    _told(
        await house.of_people(at_work),
        f"customer {nobody} is lost",
        f"customer {changed.id} is at version {changed.version}",
        f"no event of {(changed.id, changed.version + 1)}",
        f"an event of {(doubled.id, 1)}, which never was",
        f"customers: {doubled.id} is nobody's",
        f"a membership of {doubled.id} too many",
        f"no membership of {nobody}",
    )


async def _of_imports(at_work: AtWork) -> None:
    """A row too few, everywhere; and rows that were not taken back."""
    lacking = await house.of_imports(at_work, more=1)
    assert len(lacking) >= 10, lacking
    place = at_work.imports.kept
    _told(
        await imports_checker.taken_back(at_work.stack, place, 0, 0),
        f"import {place.done[0][0].id} ended as",
        *(f"rows are left in {table}" for table in ("import_rows", "orders", "customers", "memberships")),
    )


async def _of_purchases(at_work: AtWork) -> None:
    """A lost order, a revision that does not hold, a wrong count, a completion too many and a doubled guest."""
    work = at_work.purchases
    lost, stale = copy.deepcopy(list(work.stories.values())[:2])
    lost.external_id = "lost"
    work.stories["lost"] = lost
    for each in stale.revisions:
        each.items[0].unit_price.amount_minor += 1
    work.stories[stale.external_id] = stale
    completed = next(
        key for key, story in work.stories.items() if story.counts and story not in (lost, stale)
    )
    paid = copy.deepcopy(work.stories[completed])
    for each in paid.revisions:
        each.status = PENDING
    work.stories[completed] = paid
    work.stories["nobody"] = copy.deepcopy(lost)
    work.stories["nobody"].buyer = Buyer("nobody@example.com")
    await rows(
        at_work.stack,
        "update customers.customer_metrics set visits = visits + 1 where tenant_id = %s returning visits",
        work.tenant.id,
    )
    sent = _seen(at_work).sent
    heard = next(each for each in sent if each.subject == "customers.order.completed")
    strange = replace(heard, headers={**heard.headers, "ce-id": str(new_id())})
    sent.remove(heard)
    sent += [strange, sent[-1]]
    _told(
        await house.of_purchases(at_work),
        "order lost is lost",
        f"order {stale.external_id} is",
        "counted of",
        "customer_metrics",
        f"order {completed} was completed 1 times",
        "customers.memberships:",
        f"event {heard.headers['ce-id']} was handled and is not on the stream",
        f"event {strange.headers['ce-id']} was not handled by loyalty",
        f"event {strange.headers['ce-id']} was not handled by customers",
        f"event {sent[-1].headers['ce-id']} is on the stream 2 times",
    )


async def _of_timelines(at_work: AtWork) -> None:
    """One in the wrong order, an entry too few and one too many."""
    shown = _seen(at_work).shown
    (turned, longer, shorter), whole = list(shown)[:3], copy.deepcopy(shown)
    shown[turned].reverse()
    shown[longer].insert(0, copy.deepcopy(shown[longer][0]))
    gone = next(each for each in shown[shorter] if each.kind == timeline.TIMELINE_KIND_REPORT)
    shown[shorter].remove(gone)
    seen = _seen(at_work)
    _told(
        timeline_checker.faults(shown, at_work.points.deeds, seen.held, seen.sent),
        f"the timeline of {turned} is not in order",
        f"the timeline of {longer} has",
        f"the timeline of {shorter} lacks {(int(gone.kind), gone.id)}",
    )
    shown |= whole


async def _of_points(at_work: AtWork) -> None:
    """In each table a row too many, too few or wrong; and deeds of which nobody knows, or nothing is known."""
    seen, work = _seen(at_work), at_work.points
    whole, deeds = copy.deepcopy(seen.kept), list(work.deeds)
    wanted = [
        *_on_orders(at_work, seen.kept),
        *_in_the_ledger(at_work, seen.kept),
        *_in_deeds(work, seen.kept),
        *_in_letters(seen.kept),
    ]
    wanted += [*_in_rewards(seen.kept), *_in_tiers(seen.kept)]
    account = await rows(
        at_work.stack,
        "update loyalty.accounts a set balance = balance + 1 "
        "from (select account_id from loyalty.accounts where tenant_id = %s and customer_id = %s limit 1) one "
        "where a.account_id = one.account_id returning a.account_id",
        work.club.shop.tenant.id,
        UUID(work.customers[0]),
    )
    redeemed = seen.kept.redemptions[-1]["redemption_id"]
    await rows(
        at_work.stack,
        "update loyalty.redemptions set points = points + 1 where redemption_id = %s returning points",
        redeemed,
    )
    own = f"account {account[0]['account_id']}:", f"redemption {redeemed}:", f"{work.customers[0]} is shown"
    _told(await house.of_points(at_work), *wanted, *own)
    seen.kept, work.deeds = whole, deeds


async def _of_households(at_work: AtWork) -> None:
    """Points from nowhere, a transfer with one side, what lapsed and is there, and who came and went unseen."""
    seen, work = _seen(at_work), at_work.households
    whole, deeds = copy.deepcopy(seen.pooled), list(work.deeds)
    wanted = [*_in_transfers(seen.pooled), *_in_what_lapsed(seen.pooled), *_in_who_is_inside(seen.pooled)]
    gift = next(each for each in work.deeds if each.id and each.rpc == "AdjustPoints")
    work.deeds.remove(gift)
    wanted += [f"an entry {(ADJUST,)}"[:-2], "all have"]
    name = work.family.steady[0][0]
    lot = await rows(
        at_work.stack,
        "update loyalty.lots l set remaining = remaining + 1 "
        "from (select lot_id from loyalty.lots where tenant_id = %s and remaining < points "
        "and expires_at is null limit 1) one "
        "where l.lot_id = one.lot_id returning l.lot_id",
        work.shop.tenant.id,
    )
    await rows(
        at_work.stack,
        "update loyalty.accounts set balance = balance + 1 where tenant_id = %s and customer_id = %s "
        "returning balance",
        work.shop.tenant.id,
        UUID(name),
    )
    wanted += [f"lot {lot[0]['lot_id']}:", f"{name} is shown"]
    gone = next(each for each in seen.shown_pooled[name] if each.kind == timeline.TIMELINE_KIND_REPORT)
    seen.shown_pooled[name].remove(gone)
    wanted.append(f"the timeline of {name} lacks {(int(gone.kind), gone.id)}")
    _told(await house.of_households(at_work), *wanted)
    seen.pooled, work.deeds = whole, deeds


def _in_transfers(kept: Kept) -> Iterable[str]:
    """A transfer that lost its other side, one for nobody, an account below zero, and others' points that stayed."""
    gone, strange = [row for row in kept.entries if row["kind"] == TRANSFER and row["points"] > 0][:2]
    kept.entries.remove(gone)
    yield f"transfer {gone['counterpart_id']} has no other side"
    yield f"transfers for {gone['source']} come to"
    yield f"entry {gone['entry_id']} was told and is not there"
    strange["source"] = "household:nobody"
    yield f"transfer {strange['entry_id']} is for household:nobody"
    strange["opening_balance"] = -strange["points"] - 1
    yield f"account {strange['account_id']} was below zero by entry {strange['entry_id']}"
    lot = next(row for row in kept.lots if row["pooled"])
    lot["remaining"] += 1
    yield f"of others in lot {lot['lot_id']}"
    yield f"account {lot['account_id']} recounted is"


def _in_what_lapsed(kept: Kept) -> Iterable[str]:
    """A lot that lapsed and is not empty, one that lapsed too early, more than it had, and a lapse untold."""
    booked = {row["entry_id"]: row for row in kept.entries if row["kind"] == EXPIRE}
    mine = [row for row in kept.allocations if row["entry_id"] in booked]
    lots = {row["lot_id"]: row for row in kept.lots}
    early, more = mine[0], mine[-1]
    lots[early["lot_id"]]["expires_at"] = None
    yield f"lot {early['lot_id']} lapsed before its expiry"
    full = next(row for row in kept.lots if row["expires_at"] is not None)
    full["remaining"] += 1
    yield f"lot {full['lot_id']} is past its expiry with"
    more["points"] -= 1
    yield f"entry {more['entry_id']} let"
    untold = next(each for each in kept.sent if each.subject == "customers.points.expired")
    kept.sent.remove(untold)
    yield f"of account {untold.headers['ce-subject']}"


def _in_who_is_inside(kept: Kept) -> Iterable[str]:
    """A household untold, a change told twice, a member too many and one in two places."""
    first, second, third = sorted({each.headers["ce-subject"] for each in kept.sent if _joined(each)})[:3]
    kept.sent = [each for each in kept.sent if not _joined(each) or each.headers["ce-subject"] != first]
    yield f"household {first} at"
    yield f"came into {first} and it was not told"
    kept.sent.append(
        next(each for each in kept.sent if _joined(each) and each.headers["ce-subject"] == second)
    )
    yield f"household {second} was joined by"
    yield f"came into {second} more often than asked"
    row = next(row for row in kept.household_members if str(row["household_id"]) == second)
    kept.household_members.append({**row, "household_id": UUID(third)})
    yield f"household {third} has"
    yield f"{row['customer_id']} is in 2 households"
    lost = next(row for row in kept.households if str(row["household_id"]) == third)
    kept.households.append({**lost, "household_id": new_id()})
    yield f"household {kept.households[-1]['household_id']} was never asked for"


def _joined(letter: Letter) -> bool:
    return letter.subject == "customers.household.joined"


def _in_the_ledger(at_work: AtWork, kept: Kept) -> Iterable[str]:
    """Entries, lots, accounts and what orders gave."""
    adjusted = [row for row in kept.entries if row["kind"] == ADJUST]
    kept.entries.remove(adjusted[0])
    yield f"no entry {(ADJUST,)}"[:-2]
    kept.entries.append({**adjusted[1], "entry_id": new_id()})
    yield f"an entry {(ADJUST,)}"[:-2]
    kept.accounts[-1]["balance"] += 1
    owner = str(kept.accounts[-1]["program_id"]), str(kept.accounts[-1]["customer_id"])
    yield f"balance of {owner} is {kept.accounts[-1]['balance'] - kept.accounts[-1]['shortfall']}"
    yield f"account {kept.accounts[-1]['account_id']} recounted is"
    lot = next(row for row in kept.lots if row["account_id"] != kept.accounts[-1]["account_id"])
    lot["remaining"] += 1
    yield f"account {lot['account_id']} recounted is"
    held, stories = _seen(at_work).held, at_work.purchases.stories
    steady = {held[key].id: key for key, story in stories.items() if story.steady and story.completed}
    earned = [row for row in kept.entries if row["kind"] == EARN and str(row["order_id"]) in steady]
    kept.entries.append({**earned[0], "entry_id": new_id()})
    yield f"order {steady[str(earned[0]['order_id'])]} earned 2 times"
    earned[1]["points"] += 1
    yield f"order {steady[str(earned[1]['order_id'])]} earned {_net(kept, earned[1])}, it is worth"
    earned[2]["reasons"] = [{**reason, "points": reason["points"] + 1} for reason in earned[2]["reasons"]]
    by_rule = sorted(reason["points"] for reason in earned[2]["reasons"])
    yield f"order {steady[str(earned[2]['order_id'])]} earned {by_rule} by its rules"


def _on_orders(at_work: AtWork, kept: Kept) -> Iterable[str]:
    """More came back of what was spent on an order than was spent, and something of what was spent on none."""
    held = {order.id: key for key, order in _seen(at_work).held.items()}
    spent = [
        row
        for row in kept.entries
        if row["kind"] == REDEEM and row["order_id"] is not None and row["hold_id"] is None
    ]
    row = spent[-1]
    returned = {
        **row,
        "entry_id": new_id(),
        "kind": REVERSE,
        "points": 1 - row["points"],
        "balance_points": 0,
    }
    kept.entries.append({**returned, "reverses_id": row["entry_id"]})
    yield f"of {-row['points']} spent on order {held[str(row['order_id'])]}"
    strange = new_id()
    kept.entries.append({**returned, "entry_id": new_id(), "reverses_id": strange})
    yield f"{1 - row['points']} came back of {strange}, which was spent on no order"


def _net(kept: Kept, of: Row) -> int:
    return sum(
        row["points"] - row["shortfall"]
        for row in kept.entries
        if (row["order_id"], row["account_id"]) == (of["order_id"], of["account_id"])
    )


def _in_deeds(work: Points, kept: Kept) -> Iterable[str]:
    """A deed that is lost, one that was done twice, one that was refused and done, and those of nobody."""
    claims = {row["request_id"]: row for row in kept.idempotency_keys}
    done = (each for each in work.deeds if each.id and each.rpc == "AdjustPoints")
    lost, twice = next(done), next(done)
    kept.idempotency_keys.remove(claims[lost.request_id])
    yield f"AdjustPoints {lost.id} was answered, and is lost"
    kept.idempotency_keys.append({**claims[twice.request_id], "resource_id": new_id()})
    yield f"AdjustPoints {[twice.id]}"[:-1]
    refused = next(each for each in work.deeds if each.refused)
    kept.idempotency_keys.append({"request_id": refused.request_id, "resource_id": new_id()})
    yield f"{refused.rpc} was refused as {refused.refused}, and is"
    continued = [each.about for each in work.deeds]
    for rpc, what in (("HoldPoints", "hold"), ("RedeemReward", "redemption")):
        mine = [each for each in work.deeds if each.id and each.rpc == rpc]
        unasked, missing = next(each for each in mine if each not in continued), mine[-1]
        work.deeds.remove(unasked)
        yield f"{what} {unasked.id} was never asked for"
        table, key = (kept.holds, "hold_id") if what == "hold" else (kept.redemptions, "redemption_id")
        table.remove(next(row for row in table if str(row[key]) == missing.id))
        yield f"{what} {missing.id} is lost"
    captured = next(row for row in kept.holds if row["state"] == CAPTURED)
    captured["state"] = 3
    yield f"hold {captured['hold_id']} is in state 3"


def _in_letters(kept: Kept) -> Iterable[str]:
    """An entry that nobody was told of, one that was told twice, and a use of a code that was not."""
    told = [each for each in kept.sent if each.subject == "customers.points.redeemed"]
    *_, last = (str(row["redemption_id"]) for row in kept.redemptions if row["state"] == USED)
    used = next(
        each
        for each in kept.sent
        if each.subject == "customers.reward.used" and each.headers["ce-subject"] == last
    )
    kept.sent = [each for each in kept.sent if each not in (told[0], used)] + [told[1]]
    yield "was not told"
    yield "was told 2 times"
    yield f"used of redemption {last} was not told"


def _in_rewards(kept: Kept) -> Iterable[str]:
    """A code that is not what became of it, one that two have, and a stock that is overdrawn."""
    used = next(row for row in kept.redemptions if row["state"] == USED)
    used["state"] = UNDONE
    yield f"redemption {used['redemption_id']} is in state {UNDONE}"
    kept.redemptions[0]["code_hash"] = kept.redemptions[1]["code_hash"]
    yield "a code was given 2 times"
    taken = {row["reward_id"] for row in kept.redemptions if row["state"] != UNDONE}
    stocked = next(row for row in kept.rewards if row["reward_id"] in taken)
    stocked["stock"] = 0
    yield f"reward {stocked['reward_id']} was given"


def _in_tiers(kept: Kept) -> Iterable[str]:
    """A tier that is not deserved, a change that is not the last, and one that was not told."""
    owners = {row["account_id"]: row["customer_id"] for row in kept.accounts}
    first, second = itertools.islice((row for row in kept.standings if row["tier"] != "BRONZE"), 2)
    first["tier"] = "BRONZE"
    yield f"tier of {owners[first['account_id']]} is 0"
    yield f"tiers of account {first['account_id']} went"
    risen = next(
        each
        for each in kept.sent
        if each.subject == "customers.tier.upgraded"
        and each.headers["ce-subject"] == str(second["account_id"])
    )
    kept.sent.remove(risen)
    yield f"tiers of {second['account_id']} were told"


def _seen(at_work: AtWork) -> Seen:
    assert at_work.seen
    return at_work.seen
