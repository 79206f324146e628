"""What is done for referrals in the background: those that something happened to are judged, after asking customers."""

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from libs import outages
from libs.jobs import Job
from libs.problems import Code, Conflict, Problem
from libs.run.service import Runtime
from libs.timers import Periodic
from regulars.customers.v1.contacts_pb2 import CompareContactsRequest
from regulars.customers.v1.contacts_pb2_grpc import ContactsServiceStub
from services.loyalty import due
from services.loyalty.programs import queries as programs
from services.loyalty.referrals import actions, queries, rules
from services.loyalty.referrals.actions import SETTLE, terms_of

log = logging.getLogger(__name__)

AT_ONCE = 200


async def settle_referrals(rt: Any, job: Job) -> None:
    """Judges the referrals of a job that are due."""
    if not await _look_at(rt, [UUID(each) for each in job.input["ids"]]):
        raise Conflict  # begins again


async def keep_referrals(rt: Any) -> None:
    """Judges every tenant's referrals that are due, those that a job should have judged too."""
    runtime: Runtime = rt
    await due.for_each(runtime, await due.tenants(runtime, "referrals"), _keep)


async def _keep(rt: Runtime) -> None:
    more = True
    while more:
        async with rt.db.read() as tx:
            found = await queries.due(tx, AT_ONCE)
        await _look_at(rt, found)
        more = len(found) == AT_ONCE


async def _look_at(rt: Runtime, referral_ids: Iterable[UUID]) -> bool:
    """Judges these as far as they are due; False if one changed meanwhile. Raises Unavailable and the like.

    What cannot be judged, because an account holds no more points for instance, is put off.
    """
    unchanged = True
    for referral_id in referral_ids:
        try:
            await _look_at_one(rt, referral_id)
        except Exception as error:  # one of the loops: a referral's failure is its own
            if outages.is_conflict(error):
                unchanged = False
                continue
            if outages.is_passing(error):
                raise
            refused = isinstance(error, Problem)
            log.warning(
                "A referral waits",
                extra={
                    "referral": str(referral_id),
                    "reason": getattr(error, "reason", type(error).__name__),
                },
                exc_info=None if refused else error,
            )
            async with rt.db.tx() as tx:
                await actions.put_off(tx, referral_id)
    return unchanged


async def _look_at_one(rt: Runtime, referral_id: UUID) -> None:
    async with rt.db.read() as tx:
        row = await queries.referral(tx, referral_id)
        if row.due_at is None or row.due_at > tx.now:
            return
        terms = terms_of(programs.program_of(await programs.row(tx, row.program_id)))
    if row.state == rules.INVITED:
        async with rt.db.tx() as tx:
            return await actions.expire_invitation(tx, referral_id)
    everything = {terms.same_contact, terms.same_address} == {rules.ALLOW}
    alike: frozenset[int] | None = None
    if row.state == rules.REGISTERED and not (row.approved or everything):
        alike = await _alike(rt, row)
        if alike is None:
            async with rt.db.tx() as tx:
                return await actions.put_off(tx, referral_id)
    async with rt.db.tx() as tx:
        await actions.settle(tx, referral_id, row.version, alike)


async def _alike(rt: Runtime, row: Row[Any]) -> frozenset[int] | None:
    """In what the two people of a referral agree; None if customers do not know both, or takes them for one."""
    if row.referrer_id is None or row.friend_id is None:
        return frozenset()
    asked = CompareContactsRequest(
        business_id=str(row.business_id),
        customer_id=str(row.referrer_id),
        other_customer_id=str(row.friend_id),
    )
    try:
        found = await rt.clients.stub(ContactsServiceStub, "customers").CompareContacts(asked)
    except Problem as problem:
        if problem.code is Code.NOT_FOUND:
            return None
        raise
    return None if found.same_customer else frozenset(found.agreements)


JOBS = {SETTLE: settle_referrals}
PERIODIC = [Periodic("keep referrals", timedelta(minutes=1), keep_referrals)]
