"""What a service needs, looked at all the time: its database, its schema's version, NATS, its own loops."""

import asyncio
import logging
from collections.abc import Mapping

import psycopg
from nats.aio.client import Client
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import column, exc, select, table

from libs import revisions, status
from libs.caller import Caller, acting_as
from libs.db import Database
from libs.pipeline import Query, Step
from libs.probes import Readiness
from libs.run.loops import Loop

log = logging.getLogger(__name__)

CHECK_SECONDS = 2.0
STARTING_SECONDS = 0.2
ANSWER_SECONDS = 3.0
_NOBODY = Caller(tenant_id=None, subject="readiness", kind="service")


class Watch:
    """Keeps a service's readiness true."""

    def __init__(
        self,
        service: str,
        readiness: Readiness,
        db: Database,
        nc: Client,
        redis: "Redis | None",
        loops: Mapping[str, Loop],
    ) -> None:
        self._readiness = readiness
        self._db = db
        self._nc = nc
        self._redis = redis
        self._loops = loops
        self._expected = revisions.newest(service)
        self._versions: list[Step] = [
            (Query(select(column("version_num")).select_from(table(name))), {}) for name in self._expected
        ]
        self._nats_was_there = False

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(CHECK_SECONDS if self._readiness.ready else STARTING_SECONDS)

    async def look(self) -> None:
        """Looks once."""
        self._readiness.set("database", await self._database_fault())
        there = self._nc.is_connected
        self._nats_was_there = self._nats_was_there or there
        # Events wait in the outbox meanwhile; only at the start NATS must have been there once.
        fault = None if there else _nats_fault(self._nc)
        self._readiness.set("nats", fault, bearable=self._nats_was_there)
        if self._redis is not None:
            self._readiness.set("redis", await self._redis_fault(self._redis), bearable=True)
        for name, loop in self._loops.items():
            self._readiness.set(name, loop.error, bearable=True)

    async def _database_fault(self) -> str | None:
        try:
            with acting_as(_NOBODY):
                async with asyncio.timeout(ANSWER_SECONDS):
                    answers = await self._db.fetch(*self._versions)
        except (TimeoutError, OSError):
            return "no answer"
        except (psycopg.Error, exc.SQLAlchemyError) as error:
            state = status.database_facts(error).get("sqlstate", "")
            # Tables, schemas, roles or passwords that are not there yet.
            return "not migrated" if state in {"42P01", "3F000", "28000", "28P01", "3D000"} else "no answer"
        for (name, expected), rows in zip(self._expected.items(), answers, strict=True):
            if fault := version_fault(expected, rows[0].version_num if rows else None):
                return f"{name} {fault}"
        return None

    async def _redis_fault(self, redis: "Redis") -> str | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await redis.ping()
        except (TimeoutError, OSError, RedisError):
            return "no answer"
        return None


def _nats_fault(nc: Client) -> str:
    return "not authorized" if "authorization" in str(nc.last_error).lower() else "no connection"


def version_fault(expected: str | None, found: str | None) -> str | None:
    """What is wrong with a schema at revision `found`, for code of revision `expected`.

    Nothing if it is that one or the next (decision 32): a schema is migrated before its code is deployed.
    """
    if found == expected or expected is None:
        return None
    ahead = _number(found) - _number(expected)
    if ahead == 1:
        return None
    return f"is at {found or 'nothing'} and must be at {expected}" if ahead < 0 else f"is too new ({found})"


def _number(revision: str | None) -> int:
    """`0003_add_tags` as 3."""
    digits = (revision or "0").partition("_")[0]
    return int(digits) if digits.isdigit() else 0
