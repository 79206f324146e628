"""Hosts one or several services in this process, each as if alone: for `regulars serve` and for the tests."""

import asyncio
import importlib
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from libs import config, logs, telemetry
from libs.run.service import Declaration
from libs.run.stack import secrets
from libs.run.stack.home import Home


def declaration(name: str) -> Declaration:
    """What `services/<name>/__main__.py` declares; libs import no service by name."""
    found: Declaration = importlib.import_module(f"services.{name}.__main__").SERVICE
    return found


@asynccontextmanager
async def hosted(names: Iterable[str], env: Mapping[str, str]) -> AsyncIterator[dict[str, object]]:
    """Hosts services, configured by `env`, while the block runs; gives what each one's `running` gives.

    Master key, development issuer and internal keys are made in the home directory unless `env` names others.
    Raises ConfigError and whatever keeps a service from starting.
    """
    common = config.load(config.Settings, None, env)
    made = secrets.ensure(common, Home(common.home), names := list(names))
    async with AsyncExitStack() as stack:
        found = {}
        for name in names:
            what = declaration(name)
            settings = config.load(what.settings, name, {**env, **made})
            found[name] = await stack.enter_async_context(what.running(settings))
        yield found


async def host(names: Iterable[str], env: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Hosts services until SIGTERM or SIGINT."""
    settings = config.load(config.Settings, None, env)
    logs.set_up(settings.log_level)
    telemetry.set_up(settings, "regulars")
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        async with hosted(names, env) as found:
            say(f"Serving {', '.join(found)}. Ctrl-C stops.")
            await stopped.wait()
    finally:
        telemetry.shut_down()
