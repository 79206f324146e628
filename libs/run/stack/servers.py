"""The three servers that services need: started from wheels, or the user's own by their addresses."""

import asyncio
import signal
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from libs import config
from libs.run.stack import nats, postgres, redis
from libs.run.stack.faults import NotHealthy, NotRunning
from libs.run.stack.home import Home
from libs.run.stack.process import Identity, Program, spawn_apart, stop


@dataclass(frozen=True, slots=True)
class Servers:
    """What to run and where the servers answer. `redis_url` is empty if there is no Redis at all."""

    programs: tuple[Program, ...]
    postgres_url: str
    nats_url: str
    redis_url: str

    def environment(self) -> dict[str, str]:
        """The variables that tell a service of these servers; the administrator's password is not in them."""
        variables = {
            "REGULARS_POSTGRES_URL": without_user(self.postgres_url),
            "REGULARS_NATS_URL": self.nats_url,
        }
        if self.redis_url:
            variables["REGULARS_REDIS_URL"] = self.redis_url
        return variables


async def prepare(settings: config.Settings, home: Home, *, durable: bool = True) -> Servers:
    """Makes ready what must be started, and tries what the settings name.

    Raises BadConfiguration, ProgramMissing, DataTooNew.
    """
    programs: list[Program] = []
    postgres_url, nats_url, redis_url = settings.postgres_url, settings.nats_url, settings.redis_url
    if postgres_url:
        await postgres.check(postgres_url)
    else:
        program, postgres_url = await asyncio.to_thread(postgres.prepare, home, durable=durable)
        programs.append(program)
    if nats_url:
        await nats.check(nats_url)
    else:
        program, nats_url = nats.prepare(home)
        programs.append(program)
    if redis_url:
        await redis.check(redis_url)
    elif found := redis.prepare(home):
        program, redis_url = found
        programs.append(program)
    return Servers(tuple(programs), postgres_url, nats_url, redis_url)


def of_running_stack(settings: config.Settings, home: Home) -> dict[str, str]:
    """The variables (REGULARS_POSTGRES_URL …) that a command needs beside those it was given.

    `postgres_url` is the administrator's. Raises NotRunning if an address is missing and no stack runs here.
    """
    known: dict[str, str] = {}
    ports: dict[str, int] = home.remembered().get("ports", {})
    given = {"postgres": settings.postgres_url, "nats": settings.nats_url, "redis": settings.redis_url}
    if all(given[name] for name in ("postgres", "nats")):
        return known
    run = home.read_run()
    if not run:
        raise NotRunning(
            f"No stack runs in {home.root}: `regulars up`, or give REGULARS_POSTGRES_URL and so on."
        )
    templates = {
        "postgres": f"postgresql://{postgres.ADMIN}:{{secret}}@127.0.0.1:{{port}}/postgres",
        "nats": "nats://{secret}@127.0.0.1:{port}",
        "redis": "redis://:{secret}@127.0.0.1:{port}/0",
    }
    for name, template in templates.items():
        if not given[name] and name in run["children"]:
            url = template.format(secret=home.secret(name), port=ports[name])
            known[f"REGULARS_{name.upper()}_URL"] = url
    return known


def without_user(url: str) -> str:
    """`url` without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


async def start(programs: tuple[Program, ...], seconds: float = 60) -> list[Identity]:
    """Starts servers and waits until they are healthy, for tests. Raises NotHealthy."""
    running = [spawn_apart(program) for program in programs]
    deadline = asyncio.get_running_loop().time() + seconds
    for program, process in zip(programs, running, strict=True):
        while not await program.healthy():
            if not process.alive() or asyncio.get_running_loop().time() > deadline:
                await stop_all(running)
                raise NotHealthy(f"{program.name} did not start; see {program.log}.")
            await asyncio.sleep(0.05)
    return running


async def stop_all(processes: list[Identity]) -> None:
    """Stops servers that `start` started."""
    # SIGINT is what PostgreSQL needs not to wait for its clients; NATS and Redis take it as well.
    await asyncio.gather(*(stop(process, signal.SIGINT, 20) for process in processes))
