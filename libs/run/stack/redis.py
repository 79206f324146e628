"""Redis as a cache: nothing in it is kept over a stop."""

import os

import redis.asyncio
from redis.exceptions import RedisError

from libs.files import replace
from libs.run.stack import binaries
from libs.run.stack.faults import BadConfiguration
from libs.run.stack.home import Home
from libs.run.stack.process import Program


def prepare(home: Home) -> tuple[Program, str] | None:
    """Writes the configuration; gives the program to run and its address, None without a Redis here."""
    binary = binaries.redis_server()
    if binary is None:
        return None
    home.prepare()
    port, password = home.private_port("redis"), home.secret("redis")
    directory = home.root.resolve() / "redis"
    directory.mkdir(mode=0o700, exist_ok=True)
    config = directory / "redis.conf"
    replace(
        config,
        f"""bind 127.0.0.1
port {port}
requirepass {password}
dir "{directory}"
save ""
appendonly no
maxmemory 128mb
maxmemory-policy allkeys-lru
daemonize no
""".encode(),
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"

    async def healthy() -> bool:
        return await answers(url)

    program = Program(
        name="redis",
        kind="server",
        argv=(str(binary), str(config)),
        env={"PATH": os.defpath},
        cwd=directory,
        log=home.log_file("redis"),
        address=f"127.0.0.1:{port}",
        healthy=healthy,
    )
    return program, url


async def answers(url: str) -> bool:
    """Whether the server at `url` takes commands."""
    client = redis.asyncio.from_url(url, socket_connect_timeout=2, socket_timeout=2)
    try:
        return bool(await client.ping())
    except (OSError, RedisError):
        return False
    finally:
        await client.aclose()


async def check(url: str) -> None:
    """Refuses a server that we cannot use. Raises BadConfiguration."""
    if not await answers(url):
        raise BadConfiguration("REGULARS_REDIS_URL: no connection.")
