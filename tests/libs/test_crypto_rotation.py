"""Rotation of tenant keys: while writers work, killed anywhere, run twice at once."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError, ProgrammingError

from libs.caller import acting_as
from libs.crypto import KeyDestroyed, KeyMissing, Kind, live_versions, subject_keys, tables
from libs.crypto.rotation import Progress, Rotation, rotate, rotation_of_epoch, step
from libs.ids import new_id
from tests.libs import vaults
from tests.libs.rooms import Machine, eventually
from tests.libs.vaults import Vault, identifiers, opened


@pytest.fixture(scope="module")
async def schema(machine: Machine) -> str:
    return await vaults.migrated(machine)


@pytest.fixture
async def vault(machine: Machine, schema: str, tmp_path: Path) -> AsyncIterator[Vault]:
    async with opened(machine, schema, new_id(), tmp_path) as vault:
        yield vault


async def until(vault: Vault, rotation: Rotation, phase: str) -> Progress:
    """Steps until the phase has begun."""
    progress = None
    while progress is None or progress.phase != phase:
        progress = await step(vault.db, vault.keys, rotation, progress, grace_seconds=0)
    return progress


async def test_the_epoch_changes_and_data_stays_readable(vault: Vault) -> None:
    ids = [await vault.add(f"p{n}@example.com") for n in range(5)]
    before = {row["id"]: row["text"] for row in await vault.rows(vaults.people)}
    rotation = rotation_of_epoch(vault.keys, leaving=1)
    await rotate(vault.db, vault.keys, rotation, grace_seconds=0)
    assert {row["epoch"] for row in await vault.rows(tables.subject_keys)} == {2}
    assert {row["id"]: row["text"] for row in await vault.rows(vaults.people)} == before
    assert vault.keystore.versions(vault.tenant_id)[Kind.KEK] == (2,)
    assert [await vault.text_of(each) for each in ids] == [f"p{n}@example.com" for n in range(5)]
    with pytest.raises(KeyDestroyed):
        vault.keys.for_tenant(vault.tenant_id).unwrap(new_id(), 1, bytes(61))


async def test_identifiers_get_new_fingerprints(vault: Vault) -> None:
    ids = [await vault.add(f"p{n}@example.com") for n in range(20)]
    await rotate(vault.db, vault.keys, vault.rotation_of_identifiers(leaving=1), grace_seconds=0)
    assert [await vault.find(f"p{n}@example.com") for n in range(20)] == ids
    assert {row["key_version"] for row in await vault.rows(identifiers)} == {2}
    assert vault.keystore.versions(vault.tenant_id)[Kind.IDENTIFIER] == (2,)


async def test_a_finished_rotation_does_nothing_when_run_again(vault: Vault) -> None:
    await vault.add("p@example.com")
    for _ in range(2):
        await rotate(vault.db, vault.keys, rotation_of_epoch(vault.keys, leaving=1), grace_seconds=0)
    assert vault.keystore.versions(vault.tenant_id)[Kind.KEK] == (2,)
    await rotate(vault.db, vault.keys, rotation_of_epoch(vault.keys, leaving=2), grace_seconds=0)
    assert vault.keystore.versions(vault.tenant_id)[Kind.KEK] == (3,)


async def test_the_old_key_stays_for_a_while(vault: Vault) -> None:
    rotation = rotation_of_epoch(vault.keys, leaving=1)
    progress = await until(vault, rotation, "flip")
    while not progress.pause_seconds:
        progress = await step(vault.db, vault.keys, rotation, progress, grace_seconds=60)
    assert 50 < progress.pause_seconds <= 60
    assert vault.keystore.versions(vault.tenant_id)[Kind.KEK] == (1, 2)


async def test_an_address_stays_unique_while_a_version_is_added(vault: Vault) -> None:
    await vault.add("first@example.com")
    await until(vault, vault.rotation_of_identifiers(leaving=1), "add")
    await vault.add("second@example.com")
    assert {row["key_version"] for row in await vault.rows(identifiers)} == {1, 2}
    for taken in ("first@example.com", "second@example.com"):
        with pytest.raises(IntegrityError):
            await vault.add(taken)


async def test_who_waits_for_a_change_sees_it(vault: Vault) -> None:
    # After one `select … for share` it would go on with the versions from before its wait (decision 0002).
    async with vault.db.tx() as tx:
        await live_versions(tx, for_change=True)
        row = {"tenant_id": vault.tenant_id, "kind": Kind.IDENTIFIER, "version": 2, "state": "adding"}
        await tx.execute(insert(tables.key_versions).values(row | {"created_at": tx.now, "state_at": tx.now}))
        vault.keystore.add_version(vault.tenant_id, Kind.IDENTIFIER, 2)
        writer = asyncio.create_task(vault.add("late@example.com"))
        await waiting_for_a_lock(vault)
    await writer
    assert {row["key_version"] for row in await vault.rows(identifiers)} == {1, 2}


async def test_a_change_waits_for_those_who_rely_on_the_versions(vault: Vault) -> None:
    rotation = rotation_of_epoch(vault.keys, leaving=1)
    async with vault.db.read() as reader:
        before = await live_versions(reader)
        progress = await step(vault.db, vault.keys, rotation, grace_seconds=0)
        assert progress.pause_seconds
        assert await live_versions(reader) == before
    await until(vault, rotation, "done")
    assert vault.keystore.versions(vault.tenant_id)[Kind.KEK] == (2,)


async def waiting_for_a_lock(vault: Vault) -> None:
    """Returns once somebody waits for an advisory lock."""
    query = "select 1 from pg_locks where locktype = 'advisory' and not granted"
    url = vault.machine.settings.postgres_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as watcher:

        async def seen() -> bool:
            return await (await watcher.execute(query)).fetchone() is not None

        await eventually(seen)


async def test_writers_and_readers_go_on_during_rotations(vault: Vault, machine: Machine) -> None:
    # Two more processes, as it were: pools and key caches of their own on the same rows and files.
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(opened(machine, vault.name, vault.tenant_id, vault.folder))
            for _ in range(2)
        ]
        for other in others:
            other.dawdle_seconds = 0.05
        stop = asyncio.Event()
        known: dict[str, object] = {}

        async def write(number: int, writer: Vault, reader: Vault) -> None:
            count = 0
            while not stop.is_set():
                email = f"{number}-{count}@example.com"
                person = await writer.add(email)
                if count % 3 == 0:
                    email = f"{number}-{count}-new@example.com"
                    await writer.change(person, email)
                known[email] = person
                assert await reader.find(email) == person
                assert await reader.text_of(person) == email
                count += 1

        with acting_as(vault.me()):
            workers = [
                asyncio.create_task(write(number, others[number % 2], others[(number + 1) % 2]))
                for number in range(4)
            ]
            for leaving in (1, 2, 3):
                await rotate(
                    vault.db, vault.keys, vault.rotation_of_identifiers(leaving, 100), grace_seconds=0
                )
                # Readers unwrap after their transaction: the grace is theirs.
                await rotate(vault.db, vault.keys, rotation_of_epoch(vault.keys, leaving), grace_seconds=1)
            stop.set()
            await asyncio.gather(*workers)
    assert len(known) > 20
    for email, person in known.items():
        assert await vault.find(email) == person
    assert {row["key_version"] for row in await vault.rows(identifiers)} == {4}
    assert {row["epoch"] for row in await vault.rows(tables.subject_keys)} == {4}


async def test_two_rotations_at_once_do_no_harm(vault: Vault) -> None:
    ids = [await vault.add(f"p{n}@example.com") for n in range(30)]
    for _ in range(2):
        await asyncio.gather(
            *(
                # Whoever fills identifiers unwraps data keys within a transaction: the grace is theirs.
                rotate(vault.db, vault.keys, rotation, grace_seconds=1)
                for rotation in (
                    vault.rotation_of_identifiers(1, rows=3),
                    vault.rotation_of_identifiers(1, rows=4),
                    rotation_of_epoch(vault.keys, 1),
                    rotation_of_epoch(vault.keys, 1),
                )
            )
        )
    assert [await vault.find(f"p{n}@example.com") for n in range(30)] == ids
    assert [await vault.text_of(each) for each in ids] == [f"p{n}@example.com" for n in range(30)]
    kept = vault.keystore.versions(vault.tenant_id)
    assert (kept[Kind.IDENTIFIER], kept[Kind.KEK]) == ((2,), (2,))
    assert {row["key_version"] for row in await vault.rows(identifiers)} == {2}


async def test_a_rotation_killed_at_any_line_goes_on(machine: Machine, schema: str) -> None:
    settings = machine.settings
    program = [sys.executable, "-m", "tests.libs.kill_points"]
    arguments = [str(settings.home), settings.postgres_url, settings.database, schema, "61"]
    run = await asyncio.to_thread(
        subprocess.run, [*program, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[1]) >= 5, run.stdout


async def test_a_destroyed_person_is_unreadable(vault: Vault) -> None:
    gone, stays = await vault.add("gone@example.com"), await vault.add("stays@example.com")
    async with vault.db.tx() as tx:
        assert len(await subject_keys.destroy(tx, [gone])) == 1
    async with vault.db.tx() as tx:
        assert await subject_keys.destroy(tx, [gone]) == []
    with pytest.raises(KeyDestroyed):
        await vault.text_of(gone)
    assert await vault.text_of(stays) == "stays@example.com"
    await rotate(vault.db, vault.keys, rotation_of_epoch(vault.keys, leaving=1), grace_seconds=0)
    assert await vault.text_of(stays) == "stays@example.com"


async def test_a_tenant_without_keys_is_refused(vault: Vault) -> None:
    stranger = new_id()
    with pytest.raises(KeyMissing):
        vault.keys.for_tenant(stranger)
    with acting_as(vault.me(tenant_id=stranger)):
        async with vault.db.read() as tx:
            with pytest.raises(KeyMissing):
                await live_versions(tx)


async def test_keys_are_made_once(vault: Vault) -> None:
    key = vault.keys.for_tenant(vault.tenant_id).page_token_key
    assert vault.keys.for_tenant(vault.tenant_id).request_hash_key != key
    await rotate(vault.db, vault.keys, rotation_of_epoch(vault.keys, leaving=1), grace_seconds=0)
    async with vault.db.tx() as tx:
        await vault.keys.create_tenant(tx)
        assert (await live_versions(tx)).written == {
            Kind.KEK: (2,),
            Kind.IDENTIFIER: (1,),
            Kind.SEARCH: (1,),
        }
    assert vault.keys.for_tenant(vault.tenant_id).page_token_key == key


async def test_no_other_tenant_and_no_worker_sees_a_key(vault: Vault) -> None:
    await vault.add("p@example.com")
    for tenant in (new_id(), None):
        with acting_as(vault.me(tenant_id=tenant)):
            for table in (tables.subject_keys, tables.key_versions):
                assert await vault.rows(table) == []
    for table in (tables.subject_keys, tables.key_versions):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with vault.db.worker() as tx:
                await tx.execute(select(table))


async def test_a_new_version_made_elsewhere_is_found(vault: Vault) -> None:
    keys = vault.keys.for_tenant(vault.tenant_id)
    vault.keystore.add_version(vault.tenant_id, Kind.SEARCH, 2)
    assert len(keys.secret(Kind.SEARCH, 2)) == 32
