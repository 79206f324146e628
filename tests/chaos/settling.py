"""When a stack has nothing left to do, and what may not be left over then."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from uuid import UUID

import nats
import psycopg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from libs import stream
from libs.envelope import Letter
from tests.flows.looking import rows
from tests.platform import Stack

SERVICES = ("customers", "loyalty", "segments", "privacy", "notifications")
# Who hears events, and which: told here once more, so that what a service forgets to hear is seen.
HEARD: Mapping[str, tuple[str, ...]] = {
    "loyalty": (
        "customers.tenant.created",
        "customers.business.",
        "customers.customer.",
        "customers.membership.",
        "customers.order.recorded",
        "customers.order.completed",
        "customers.order.cancelled",
        "customers.order.refunded",
        "customers.activity.recorded",
    ),
    "customers": (
        "customers.order.completed",
        "customers.order.cancelled",
        "customers.order.refunded",
        "customers.points.earned",
        "customers.points.redeemed",
        "customers.points.expired",
        "customers.points.expiring",
        "customers.points.adjusted",
        "customers.points.reversed",
        "customers.points.transferred",
        "customers.tier.upgraded",
        "customers.tier.downgraded",
        "customers.tier.downgrade_pending",
        "customers.progress.milestone",
        "customers.card.completed",
        "customers.reward.redeemed",
        "customers.reward.used",
        "customers.reward.cancelled",
        "customers.reward.expired",
        "customers.referral.registered",
        "customers.referral.rewarded",
        "customers.referral.revoked",
        "customers.household.joined",
        "customers.household.left",
    ),
}
QUIET_SECONDS = 600
ACK_SECONDS = 10.0


async def quiet(stack: Stack, js: JetStreamContext) -> str:
    """What is still under way: "" once everything is published and handled."""
    left = await leftover(stack, ("outbox", "parked"))
    if left:
        return ", ".join(left)
    for service in HEARD:
        info = await js.consumer_info(stream.stream_name(stack.settings.prefix), service)
        if info.num_pending or info.num_ack_pending:
            return f"{service} has {info.num_pending} events before it and {info.num_ack_pending} in hand"
    return ""


async def until_quiet(stack: Stack) -> None:
    """Waits until everything is published and handled; twice, since one look may fall between two steps."""
    left = "not looked"
    client = await nats.connect(stack.settings.nats_url)
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            for _ in range(2):
                while left := await quiet(stack, client.jetstream()):  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not quiet: {left}") from None
    finally:
        await client.close()


async def leftover(stack: Stack, tables: Iterable[str] = ("outbox", "parked", "dead_letters")) -> list[str]:
    """What lies in these tables of all services, of any tenant."""
    parts = [
        f"select '{schema}.{table}' as place, subject from {schema}.{table}"
        for schema in SERVICES
        for table in tables
    ]
    counted = f"select place, subject, count(*) as n from ({' union all '.join(parts)}) as l group by 1, 2"
    return [f"{row['place']} holds {row['n']} {row['subject']}" for row in await rows(stack, counted)]


async def handled_once(stack: Stack, tenant_id: UUID, sent: Iterable[Letter]) -> list[str]:
    """Events of a tenant that are on the stream and were not handled by who hears them, or the other way round."""
    found = []
    for service, subjects in HEARD.items():
        published = {each.headers["ce-id"] for each in sent if each.subject.startswith(subjects)}
        query = f"select event_id from {service}.inbox where tenant_id = %s and consumer = %s"
        handled = {str(row["event_id"]) for row in await rows(stack, query, tenant_id, service)}
        found += [f"event {each} was not handled by {service}" for each in published - handled]
        found += [f"event {each} was handled and is not on the stream" for each in handled - published]
    return found


async def hurry(stack: Stack) -> None:
    """What a dead consumer had in hand goes to the next one sooner than it would."""
    client = await nats.connect(stack.settings.nats_url)
    js, name = client.jetstream(), stream.stream_name(stack.settings.prefix)
    try:
        async with asyncio.timeout(QUIET_SECONDS):
            for service in HEARD:
                while True:
                    try:
                        config = (await js.consumer_info(name, service)).config
                    except NotFoundError:
                        await asyncio.sleep(0.1)
                        continue
                    await js.add_consumer(name, config.evolve(ack_wait=ACK_SECONDS))
                    break
    finally:
        await client.close()


async def free_jobs(stack: Stack) -> None:
    """The 30 seconds that others wait for a process that died with a job are over."""
    async with asyncio.timeout(QUIET_SECONDS):
        while True:
            try:
                await rows(
                    stack,
                    "update customers.jobs set lease_until = now() where state = 'running' returning id",
                )
            except psycopg.OperationalError:
                await asyncio.sleep(0.2)
            else:
                return


async def run_timers(stack: Stack, names: Sequence[str]) -> None:
    """Tasks of loyalty that run every minute are due now, if the database answers."""
    query = "update loyalty.timers set due_at = now() where name = any(%s) returning name"
    with suppress(psycopg.OperationalError):
        await rows(stack, query, list(names))
