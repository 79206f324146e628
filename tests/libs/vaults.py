"""A service with keys and one table of sealed rows: what the tests of the crypto and of the audit need."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy
from sqlalchemy import Column as SqlColumn
from sqlalchemy import Integer, LargeBinary, MetaData, Table, UniqueConstraint, Uuid, delete, select
from sqlalchemy.dialects.postgresql import insert

from libs import migrate
from libs.audit import Audit
from libs.caller import Caller, acting_as
from libs.crypto import Column, FolderKeystore, Keys, Kind, LiveVersions, MasterKeys, live_versions, tables
from libs.crypto.rotation import Batch, Change, Rotation
from libs.db import Database, Tx
from libs.ids import new_id
from tests.libs.rooms import Machine, url_of

MASTER = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
TEXT = Column("people", "text")

_MINE = "tenant_id = (select nullif(current_setting('app.tenant_id', true), '')::uuid)"

_numbers = itertools.count()
_metadata = MetaData()
people = Table(
    "people",
    _metadata,
    SqlColumn("tenant_id", Uuid, primary_key=True),
    SqlColumn("id", Uuid, primary_key=True),
    SqlColumn("key_id", Uuid, nullable=False),
    SqlColumn("text", LargeBinary, nullable=False),
)
identifiers = Table(
    "identifiers",
    _metadata,
    SqlColumn("tenant_id", Uuid, primary_key=True),
    SqlColumn("person_id", Uuid, primary_key=True),
    SqlColumn("key_version", Integer, primary_key=True),
    SqlColumn("digest", LargeBinary, nullable=False),
    UniqueConstraint("tenant_id", "key_version", "digest", name="identifiers_digest_key"),
)


@dataclass
class Vault:
    """One service of one tenant, with its keys."""

    name: str
    machine: Machine
    db: Database
    keys: Keys
    keystore: FolderKeystore
    audit: Audit
    folder: Path
    tenant_id: UUID
    dawdle_seconds: float = 0.0  # how long, at most, a writer thinks between reading the versions and writing

    def me(self, **changes: Any) -> Caller:
        """Somebody of this test's tenant."""
        caller = Caller(tenant_id=self.tenant_id, subject="tester", method="/test/Read", request_id="r-1")
        return replace(caller, **changes)

    async def add(self, email: str, person_id: UUID | None = None) -> UUID:
        """A person with a sealed e-mail address and its fingerprints, in one transaction."""
        person_id = person_id or new_id()
        async with self.db.tx() as tx:
            live = await live_versions(tx)
            await asyncio.sleep(random.random() * self.dawdle_seconds)
            keys = self.keys.for_tenant(self.tenant_id)
            row, key = keys.new_subject_key(live, person_id, tx.now)
            await tx.execute(insert(tables.subject_keys), row._asdict())
            sealed = keys.seal(key, TEXT, person_id, email.encode())
            person = {"tenant_id": self.tenant_id, "id": person_id, "key_id": row.key_id, "text": sealed}
            await tx.execute(insert(people), person)
            await self._fingerprint(tx, live, person_id, email)
        return person_id

    async def change(self, person_id: UUID, email: str) -> None:
        """Gives a person another address."""
        async with self.db.tx() as tx:
            live = await live_versions(tx)
            keys = self.keys.for_tenant(self.tenant_id)
            row = (await tx.execute(_person(person_id).with_for_update(of=people))).one()
            key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
            sealed = keys.seal(key, TEXT, person_id, email.encode())
            await tx.execute(people.update().where(people.c.id == person_id).values(text=sealed))
            await tx.execute(delete(identifiers).where(identifiers.c.person_id == person_id))
            await self._fingerprint(tx, live, person_id, email)

    async def find(self, email: str) -> UUID | None:
        """Who has this address."""
        async with self.db.read() as tx:
            live = await live_versions(tx)
            index = self.keys.for_tenant(self.tenant_id).blind_index(live, "email", email)
            found = select(identifiers.c.person_id).where(
                identifiers.c.tenant_id == self.tenant_id,
                identifiers.c.key_version == index.key_version,
                identifiers.c.digest == index.digest,
            )
            person_id: UUID | None = await tx.scalar(found)
            return person_id

    async def text_of(self, person_id: UUID) -> str:
        """The person's address, read as a caller would."""
        async with self.db.read() as tx:
            row = (await tx.execute(_person(person_id))).one()
        keys = self.keys.for_tenant(self.tenant_id)
        with self.audit.reading("user.contact.email") as reading:
            key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
            return keys.open(reading, person_id, key, TEXT, person_id, row.text).decode()

    async def rows(self, table: Table) -> list[Mapping[str, Any]]:
        """All rows of the tenant."""
        async with self.db.read() as tx:
            return [row._asdict() for row in await tx.execute(select(table))]

    def rotation_of_identifiers(self, leaving: int, rows: int = 7) -> Rotation:
        """As a service would write it: `fill` fingerprints anew, `drain` deletes the old fingerprints."""

        async def fill(tx: Tx, change: Change, after: UUID | None) -> Batch:
            new = identifiers.alias()
            lacking = sealed_people().where(
                people.c.id > (after or UUID(int=0)),
                ~select(new).where(new.c.person_id == people.c.id, new.c.key_version == change.new).exists(),
            )
            lacking = lacking.order_by(people.c.id).limit(rows).with_for_update(of=people)
            found = (await tx.execute(lacking)).all()
            keys = self.keys.for_tenant(self.tenant_id)
            with self.audit.reading("user.contact.email") as reading:
                for row in found:
                    key = keys.unwrap(row.key_id, row.epoch, row.wrapped)
                    email = keys.open(reading, row.id, key, TEXT, row.id, row.text).decode()
                    await self._fingerprint(tx, await live_versions(tx), row.id, email, only=change.new)
            return Batch(len(found), found[-1].id if found else None)

        async def drain(tx: Tx, change: Change, after: UUID | None) -> Batch:
            some = select(identifiers.c.person_id).where(identifiers.c.key_version == change.old).limit(rows)
            gone = await tx.execute(
                delete(identifiers).where(
                    identifiers.c.key_version == change.old, identifiers.c.person_id.in_(some)
                )
            )
            return Batch(gone.rowcount, new_id() if gone.rowcount else None)

        return Rotation(kind=Kind.IDENTIFIER, leaving=leaving, fill=fill, drain=drain)

    async def _fingerprint(
        self, tx: Tx, live: LiveVersions, person_id: UUID, email: str, only: int | None = None
    ) -> None:
        for index in self.keys.for_tenant(self.tenant_id).blind_indexes(live, "email", email):
            if only in (None, index.key_version):
                row = {"tenant_id": self.tenant_id, "person_id": person_id, **index._asdict()}
                statement = insert(identifiers).values(row)
                if only is not None:
                    statement = statement.on_conflict_do_nothing(
                        index_elements=["tenant_id", "person_id", "key_version"]
                    )
                await tx.execute(statement)


def sealed_people() -> sqlalchemy.Select[Any]:
    """Everybody, with what opens their text."""
    keys = tables.subject_keys
    joined = people.join(keys, (keys.c.tenant_id == people.c.tenant_id) & (keys.c.key_id == people.c.key_id))
    return select(people, keys.c.epoch, keys.c.wrapped).select_from(joined)


def _person(person_id: UUID) -> sqlalchemy.Select[Any]:
    return sealed_people().where(people.c.id == person_id)


async def migrated(machine: Machine) -> str:
    """A schema with the plumbing and the table of people; gives its name."""
    name = f"vault{next(_numbers)}"
    await asyncio.to_thread(migrate.migrate, machine.settings, [name])
    owner = sqlalchemy.create_engine(url_of(machine.settings, name, "owner"))
    with owner.begin() as connection:
        _metadata.create_all(connection)
        for table in _metadata.tables:
            connection.execute(sqlalchemy.text(f"alter table {table} enable row level security"))
            connection.execute(sqlalchemy.text(f"create policy tenant on {table} using ({_MINE})"))
    owner.dispose()
    return name


@asynccontextmanager
async def opened(machine: Machine, name: str, tenant_id: UUID, folder: Path) -> AsyncIterator[Vault]:
    """A service whose schema was migrated, with keystore and spool in `folder`; makes the tenant's keys."""
    db = Database(url_of(machine.settings, name, "app"), url_of(machine.settings, name, "worker"))
    keystore = FolderKeystore(folder / "keystore", name, MasterKeys(MASTER))
    audit = Audit(name, db, folder / "spool")
    vault = Vault(name, machine, db, Keys(keystore), keystore, audit, folder, tenant_id)
    try:
        with acting_as(vault.me()):
            async with db.tx() as tx:
                await vault.keys.create_tenant(tx)
            yield vault
    finally:
        audit.close()
        await db.close()
