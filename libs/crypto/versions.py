"""Which versions of a tenant's keys are in use: read in the transaction that uses them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import insert

from libs.crypto.faults import KeyMissing
from libs.crypto.keystore import Kind
from libs.crypto.tables import key_versions
from libs.db import Tx
from libs.pipeline import Query

State = Literal["adding", "current", "retiring"]
# The kinds whose versions rows depend on; of the others the keystore's newest is used.
VERSIONED = (Kind.KEK, Kind.IDENTIFIER, Kind.SEARCH)

_LIVE = Query(text("select kind, version, state, state_at from live_key_versions(:for_change)"))


@dataclass(frozen=True, slots=True)
class LiveVersions:
    """The key versions of a tenant as one transaction must use them.

    `current` is the one that look-ups use and data keys are wrapped with; `written` are those that every
    write of a blind index or search token must write, the current one first. `retiring` are on their way out,
    with the instant that began it: nobody writes or looks them up any more.
    """

    tenant_id: UUID
    current: Mapping[Kind, int]
    written: Mapping[Kind, tuple[int, ...]]
    retiring: Mapping[Kind, Mapping[int, datetime]]

    @property
    def epoch(self) -> int:
        """The current version of the key-encryption key."""
        return self.current[Kind.KEK]


async def live_versions(tx: Tx, *, for_change: bool = False) -> LiveVersions:
    """The live versions of the tenant of `tx`, which no rotation changes until `tx` ends (decision 0002).

    Everyone who writes a blind index, a search token or a data key, and everyone who looks a person up by a
    blind index, reads them in the same transaction. `for_change` waits until no other one relies on them.
    Raises KeyMissing for a tenant without keys.
    """
    current: dict[Kind, int] = {}
    adding: dict[Kind, list[int]] = {}
    retiring: dict[Kind, dict[int, datetime]] = {}
    (rows,) = await tx.together((_LIVE, {"for_change": for_change}))
    for row in rows:
        kind = Kind(row.kind)
        if row.state == "current":
            current[kind] = row.version
        elif row.state == "adding":
            adding.setdefault(kind, []).append(row.version)
        else:
            retiring.setdefault(kind, {})[row.version] = row.state_at
    if any(kind not in current for kind in VERSIONED):
        raise KeyMissing(f"Tenant {tx.tenant_id} has no key versions in this service.")
    written = {kind: (version, *adding.get(kind, ())) for kind, version in current.items()}
    return LiveVersions(tx.tenant_id, current, written, retiring)


async def add_first_versions(tx: Tx) -> None:
    """Notes version 1 of each kind as current, unless the tenant of `tx` has its versions already."""
    rows = [
        {"tenant_id": tx.tenant_id, "kind": kind, "version": 1, "state": "current"}
        | {"created_at": tx.now, "state_at": tx.now}
        for kind in VERSIONED
    ]
    # Where another version is current, the index of the one current version refuses the row.
    await tx.execute(insert(key_versions).values(rows).on_conflict_do_nothing())


async def set_state(tx: Tx, kind: Kind, version: int, state: State) -> None:
    """Moves one version to another state."""
    await tx.execute(
        key_versions.update()
        .where(key_versions.c.tenant_id == tx.tenant_id)
        .where(key_versions.c.kind == bindparam("of_kind"))
        .where(key_versions.c.version == bindparam("of_version")),
        {"of_kind": kind, "of_version": version, "state": state, "state_at": tx.now},
    )
