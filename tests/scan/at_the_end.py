"""After the whole run: no file and no key holds a personal value of it, and the scan proves that it would see one."""

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nats
import psycopg
import redis
from nats.js.api import StreamConfig

from libs.logs import JsonFormatter
from libs.run.stack import postgres
from libs.run.stack.home import Home
from tests.scan.scanning import Report, forms_of, scan_files, scan_redis
from tests.scan.sentinels import USED, Sentinels
from tests.servers import Servers

SHOWN = 20
LOGS = "logs"
STACKS = ("servers", "chaos")  # homes of servers in the directory of the run


@contextmanager
def logging_to(root: Path, worker: str) -> Iterator[None]:
    """Keeps what the services in this process log, as they would write it."""
    (root / LOGS).mkdir(exist_ok=True)
    handler = logging.FileHandler(root / LOGS / f"{worker}.log")
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def patterns_of(sentinels: Sentinels) -> dict[bytes, str]:
    """What no file may hold."""
    found: dict[bytes, str] = {}
    for what, value in (
        ("a name, an address or free text", sentinels.marker),
        ("a phone", sentinels.phone_digits),
        ("a birth date", sentinels.birth_date),
    ):
        found |= {pattern: f"{what}, {form}" for pattern, form in forms_of(value).items()}
    return found


def needed(root: Path) -> bool:
    """Whether the run had personal values at all."""
    return (root / USED).exists()


def scan_run(root: Path, began: float) -> tuple[Report, list[str]]:
    """Scans all that the run left, and what is wrong about it: nothing, if all is well. `began`: epoch seconds."""
    known, sentinels = root / "servers.json", Sentinels(root)
    servers = Servers(**json.loads(known.read_text())["servers"]) if known.exists() else Servers("", "", "")
    blind = _blind_at(root, servers, sentinels.control)
    report = Report()
    patterns = patterns_of(sentinels)
    scan_files(report, [*_places(root), *_loose_files(began)], patterns)
    if servers.redis_url:
        scan_redis(report, servers.redis_url, patterns)
    wrong = [f"personal data in {hit}" for hit in report.hits[:SHOWN]]
    return report, wrong + [f"the scan sees nothing in {place}" for place in blind]


def _places(root: Path) -> list[Path]:
    """The run's directory, and data of PostgreSQL that could not be in it."""
    return [root, *(postgres.elsewhere(Home(root / name)) for name in STACKS)]


def _loose_files(began: float) -> Iterator[Path]:
    """Files of ours that came into the machine's directory for temporary files since the run began."""
    for entry in os.scandir(tempfile.gettempdir()):
        if entry.is_file(follow_symlinks=False):
            facts = entry.stat(follow_symlinks=False)
            if facts.st_uid == os.geteuid() and facts.st_mtime >= began:
                yield Path(entry.path)


def _blind_at(root: Path, servers: Servers, control: str) -> list[str]:
    """Plants a value in each place and looks for it there; gives the places where it was not found."""
    patterns = forms_of(control)

    def found_in(places: Iterable[Path]) -> bool:
        report = Report()
        scan_files(report, places, patterns)
        return bool(report.hits)

    blind = []
    home = Home(root / "servers")
    data = [
        place for place in (home.root / "postgres", postgres.elsewhere(home) / "postgres") if place.exists()
    ]
    if data:  # else there is none, or the server is a container, and its files are not ours to read
        with psycopg.connect(servers.postgres_url, autocommit=True) as connection:
            connection.execute("create table if not exists planted (value text)")
            connection.execute("insert into planted values (%s)", [control])
            connection.execute("checkpoint")
        blind += ["PostgreSQL's journal"] * (not found_in(place / "pg_wal" for place in data))
        blind += ["PostgreSQL's tables"] * (not found_in(place / "base" for place in data))
    if (root / "servers" / "nats").exists():
        asyncio.run(_publish(servers.nats_url, control))
        blind += ["the JetStream store"] * (not found_in([root / "servers" / "nats"]))
    logs = root / LOGS
    logs.mkdir(exist_ok=True)
    (logs / "planted.log").write_text(json.dumps({"message": control.upper()}))
    blind += ["the logs"] * (not found_in([logs]))
    if servers.redis_url:
        report = Report()
        with redis.Redis.from_url(servers.redis_url) as client:
            client.set("planted", control)
        scan_redis(report, servers.redis_url, patterns)
        blind += ["Redis"] * (not report.hits)
    return blind


async def _publish(url: str, control: str) -> None:
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        await js.add_stream(StreamConfig(name="PLANTED", subjects=["planted"]))
        await js.publish("planted", control.encode())
    finally:
        await client.close()
