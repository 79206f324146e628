"""`regulars events`: what is on the stream, what consumers gave up, and handing that to them again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.table import Table

from libs import config
from libs.run import terminal
from libs.run.stack.members import GATEWAY, present
from libs.run.terminal import Json, faults_told, out, print_json, say

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from libs.db import Database

app = typer.Typer(no_args_is_help=True, help="Look at events, and at those that consumers gave up.")
Service = Annotated[str, typer.Option(help="Only this service's (default: of all).")]
Tenant = Annotated[UUID | None, typer.Option(help="Only this tenant's.")]


@app.command()
def tail(
    subject: Annotated[str, typer.Option(help="First three tokens, * for any.")] = "customers.*.*",
    tenant: Tenant = None,
    since_start: Annotated[bool, typer.Option("--all", help="From the oldest one kept.")] = False,
    limit: Annotated[int, typer.Option(help="Stop after so many; 0: never.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Print events as they come, one a line. Ctrl-C ends it."""
    with faults_told():
        found = terminal.settings(terminal.environment_of_stack())
        where = f"{found.prefix}{subject}.{tenant or '*'}"
        terminal.run(_tail(found, where, since_start, limit, as_json))


@app.command("dead-letters")
def dead_letters(
    service: Service = "", tenant: Tenant = None, limit: int = 100, as_json: Json = False
) -> None:
    """List events that consumers gave up, newest first, and why."""
    with faults_told():
        found = terminal.settings(terminal.environment_of_stack())
        letters = terminal.run(_dead_letters(found, _services(service), tenant, limit))
    if as_json:
        print_json(letters)
        return
    table = Table("service", "event", "type", "tenant", "attempts", "reason", "failed at", box=None)
    for letter in letters:
        names = ("service", "event_id", "type", "tenant_id", "attempts", "error_reason", "failed_at")
        table.add_row(*(str(letter[name]) for name in names))
    out.print(table if letters else "No dead letters.")


@app.command()
def replay(
    event: Annotated[list[UUID] | None, typer.Argument(help="Ids of events (default: all).")] = None,
    service: Service = "",
    tenant: Tenant = None,
    as_json: Json = False,
) -> None:
    """Hand dead letters to their consumers again; nothing is applied twice and nobody is notified."""
    with faults_told():
        found = terminal.settings(terminal.environment_of_stack())
        counts = terminal.run(_replay(found, _services(service), tenant, event))
    if as_json:
        print_json({"replayed": counts})
    else:
        say(f"{sum(counts.values())} events are handed on again.")


def _services(name: str) -> list[str]:
    known = [service for service in present() if service != GATEWAY]
    if name and name not in known:
        raise typer.BadParameter(f"no such service (there are: {', '.join(known)})", param_hint="--service")
    return [name] if name else known


async def _tail(found: config.Settings, where: str, since_start: bool, limit: int, as_json: bool) -> None:
    from nats.js.api import ConsumerConfig, DeliverPolicy

    from libs import contracts, stream

    contracts.files()  # registers the messages
    connection = await stream.connect(found.nats_url, "regulars events tail")
    try:
        policy = DeliverPolicy.ALL if since_start else DeliverPolicy.NEW
        events = await connection.jetstream().subscribe(
            where,
            stream=stream.stream_name(found.prefix),
            ordered_consumer=True,
            config=ConsumerConfig(deliver_policy=policy),
        )
        printed = 0
        async for message in events.messages:
            _print(message, as_json)
            printed += 1
            if printed == limit:
                return
    finally:
        await connection.close()


def _print(message: "Msg", as_json: bool) -> None:
    headers = message.headers or {}
    body = _body(headers.get("ce-type", ""), message.data)
    if as_json:
        print_json({"subject": message.subject, "headers": headers, "body": body})
        return
    out.print(f"{headers.get('ce-time', '')[:23]} [bold]{message.subject}[/] {body}")


def _body(kind: str, data: bytes) -> dict[str, Any] | str:
    """The message as JSON; its size if this version does not know its type."""
    from google.protobuf import symbol_database
    from google.protobuf.json_format import MessageToDict

    try:
        message = symbol_database.Default().GetSymbol(kind)
    except KeyError:
        return f"{len(data)} bytes of unknown type {kind}"
    found: dict[str, Any] = MessageToDict(message.FromString(data))
    return found


@asynccontextmanager
async def _database(found: config.Settings, service: str) -> AsyncIterator["Database"]:
    from libs import dsn
    from libs.db import Database

    where = (found.postgres_url, found.home, found.database, service)
    database = Database(dsn.role_url(*where, "app"), dsn.role_url(*where, "worker"), pool_size=1)
    try:
        yield database
    finally:
        await database.close()


async def _dead_letters(
    found: config.Settings, services: list[str], tenant: UUID | None, limit: int
) -> list[dict[str, Any]]:
    from libs import inbox

    letters: list[dict[str, Any]] = []
    for service in services:
        async with _database(found, service) as database:
            some = await inbox.list_dead_letters(database, tenant_id=tenant, limit=limit)
        fields = inbox.DeadLetter.__dataclass_fields__
        letters += [{"service": service, **{name: getattr(one, name) for name in fields}} for one in some]
    return sorted(letters, key=lambda letter: letter["failed_at"], reverse=True)[:limit]


async def _replay(
    found: config.Settings, services: list[str], tenant: UUID | None, events: list[UUID] | None
) -> dict[str, int]:
    from libs import inbox

    counts = {}
    for service in services:
        async with _database(found, service) as database:
            counts[service] = await inbox.replay_dead_letters(
                database, tenant_id=tenant, event_ids=events or None
            )
    return counts
