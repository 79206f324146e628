"""`regulars demo`: a real purchase history through the running stack, or through one that is started for it."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import typer

from libs import issuer
from libs.run import terminal
from libs.run.commands.access import TENANTS
from libs.run.commands.calls import ask, operator_token
from libs.run.stack.faults import NotHealthy
from libs.run.stack.home import Home
from libs.run.terminal import faults_told, out, say

TENANT = "demo"
ROLES = ("owner",)


def command(start: Callable[[], None]) -> Callable[..., None]:
    """The command; `start` starts a stack apart from this terminal and returns once it is up."""

    def demo(
        keep: Annotated[bool, typer.Option(help="Leave a stack that was started for it running.")] = False,
    ) -> None:
        """Import a real purchase history and show what comes of it. Twice doubles nothing."""
        from libs.run.stack import status

        with faults_told():
            home = Home(terminal.settings().home.resolve())
            started = not home.held()
            if started:
                say("No stack runs here; one is started for the demonstration.")
                start()
            try:
                right = terminal.run(_tell())
            finally:
                if started and not keep:
                    terminal.run(status.down(home, say))
        if not right:
            raise typer.Exit(1)

    return demo


async def _tell() -> bool:
    found = terminal.settings(terminal.environment_of_stack())
    tenant = await ask(found, f"{TENANTS}/CreateTenant", {"slug": TENANT}, operator_token(found))
    tenant_id = UUID(tenant.id)

    def mint(business: UUID | None = None) -> str:
        return issuer.mint(
            found.home.resolve(),
            tenant=tenant_id,
            roles=ROLES,
            businesses=[business] if business else None,
            subject="demo",
            audience=found.oidc_audience,
        )

    # The demonstration is no part of the plumbing: it is found by its name, as the services are.
    rest, story = (importlib.import_module(f"demo.{name}") for name in ("rest", "story"))
    from libs import stream

    nats = await stream.connect(found.nats_url, "regulars demo")
    began = asyncio.get_running_loop().time()
    try:
        async with rest.Rest(f"http://127.0.0.1:{found.port}/api/v1", mint()) as client:
            right: Any = await story.tell(client, mint, nats, found.prefix, tenant_id, out)
    except rest.Refused as refusal:
        raise NotHealthy(str(refusal)) from None
    finally:
        await nats.close()
    say(f"{asyncio.get_running_loop().time() - began:.1f} s.")
    return bool(right)
