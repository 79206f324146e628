"""Tiers of programs, kept for an hour under their version: what a change replaced is never looked for again.

Which version holds comes with the program's row, so a reader who began after a change asks for the new one, and a
reader who writes the old one back, however late, writes it where nobody looks.
"""

from datetime import datetime
from uuid import UUID

import orjson

from libs.cache import Cache
from libs.db import Tx
from services.loyalty.programs.queries import Program
from services.loyalty.tiers import queries
from services.loyalty.tiers.queries import Configuration

SECONDS = 3600


async def configuration(tx: Tx, cache: Cache, program: Program) -> Configuration:
    """The tiers of a program that hold as of its row: for reads. A write reads the truth under its lock."""
    stored = await cache.get(tx.tenant_id, key(program.program_id, program.tiers_version))
    if stored is not None:
        plain = orjson.loads(stored)
        return Configuration(
            program_id=program.program_id,
            version=program.tiers_version,
            definition=plain["definition"],
            changed_at=datetime.fromisoformat(plain["changed_at"]),
        )
    found = await queries.configuration(tx, program.program_id)
    plain = orjson.dumps({"definition": found.definition, "changed_at": found.changed_at})
    await cache.put(tx.tenant_id, key(program.program_id, found.version), plain, SECONDS)
    return found


def key(program_id: UUID, version: int) -> str:
    """Where a version of a program's tiers is kept."""
    return f"tiers:{program_id}:{version}"
