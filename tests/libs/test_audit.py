"""The audit of reads: an entry before the answer, none lost by a kill, each moved to the outbox."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from libs import audit as audits
from libs import clock
from libs.audit import Audit
from libs.caller import Caller, acting_as
from libs.contracts import faults
from libs.crypto import SealedRow
from libs.db import Database
from libs.ids import new_id
from libs.plumbing import outbox
from libs.problems import Unauthenticated, Unavailable
from libs.spool import Spool
from regulars.type.v1.audit_pb2 import ACTOR_KIND_CUSTOMER, Access, AccessRecorded
from tests.libs import vaults
from tests.libs.rooms import Machine, eventually, running
from tests.libs.vaults import Vault, opened

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.fixture(scope="module")
async def schema(machine: Machine) -> str:
    return await vaults.migrated(machine)


@pytest.fixture
async def vault(machine: Machine, schema: str, tmp_path: Path) -> AsyncIterator[Vault]:
    async with opened(machine, schema, new_id(), tmp_path) as vault:
        yield vault


async def published(vault: Vault) -> list[Access]:
    """What the outbox has of this tenant, in order."""
    async with vault.db.read() as tx:
        rows = await tx.execute(
            select(outbox.c.body, outbox.c.headers, outbox.c.subject).order_by(outbox.c.id)
        )
        found: list[Access] = []
        for row in rows:
            assert row.subject == "customers.access.recorded"
            assert row.headers["actor"] == f"service:{vault.name}"
            found += AccessRecorded.FromString(row.body).entries
        return found


def spooled(vault: Vault) -> bytes:
    """What is on disk."""
    return b"".join(path.read_bytes() for path in (vault.folder / "spool" / vault.name).iterdir())


async def test_a_read_leaves_who_whom_what_why_and_when(vault: Vault) -> None:
    person = await vault.add("ann@example.com")
    business = replace(
        vault.me(),
        kind="customer",
        on_behalf_of="somebody",
        purpose="support.call",
        request_id="7d1f",
        service="loyalty",
    )
    before = clock.now()
    with acting_as(business):
        assert await vault.text_of(person) == "ann@example.com"
    assert person.bytes in spooled(vault)
    assert b"ann@example.com" not in spooled(vault)
    assert await vault.audit.flush() == 1
    (entry,) = await published(vault)
    assert list(entry.customer_ids) == [person.bytes]
    assert list(entry.categories) == ["user.contact.email"]
    assert (entry.actor, entry.actor_kind, entry.on_behalf_of) == ("tester", ACTOR_KIND_CUSTOMER, "somebody")
    assert (entry.service, entry.method) == (vault.name, "/test/Read")
    assert (entry.purpose, entry.request_id) == ("support.call", "7d1f")
    assert before <= entry.read_at.ToDatetime(before.tzinfo) <= clock.now()
    assert spooled(vault) == b""


async def test_many_people_make_one_entry(vault: Vault) -> None:
    with vault.audit.reading("user.name", "user.contact", "user.name") as reading:
        ids = [new_id() for _ in range(1000)]
        for each in ids + ids:
            reading.opened(each)
    assert await vault.audit.flush() == 1
    (entry,) = await published(vault)
    assert list(entry.customer_ids) == [each.bytes for each in ids]
    assert list(entry.categories) == ["user.contact", "user.name"]


async def test_very_many_people_fit_into_events(vault: Vault) -> None:
    ids = [new_id() for _ in range(60_000)]
    with vault.audit.reading("user") as reading:
        for each in ids:
            reading.opened(each)
    assert await vault.audit.flush() == 12
    entries = await published(vault)
    assert [i for entry in entries for i in entry.customer_ids] == [each.bytes for each in ids]
    async with vault.db.read() as tx:
        assert all(len(body) < 400_000 for body in (await tx.execute(select(outbox.c.body))).scalars())


async def test_a_search_names_only_those_it_shows(vault: Vault) -> None:
    shown, judged = new_id(), new_id()
    with vault.audit.reading("user") as reading:
        reading.opened(judged)
        reading.opened(shown)
        reading.only([shown, new_id()])
    await vault.audit.flush()
    assert [list(entry.customer_ids) for entry in await published(vault)] == [[shown.bytes]]


async def test_nothing_opened_nothing_noted(vault: Vault) -> None:
    with vault.audit.reading("user"):
        pass
    assert await vault.audit.flush() == 0


async def test_a_failed_read_is_noted_too(vault: Vault) -> None:
    def fail() -> None:
        with vault.audit.reading("user") as reading:
            reading.opened(new_id())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert await vault.audit.flush() == 1


@pytest.mark.parametrize("text", ["Calling Ann", "ann@example.com", "x" * 200, "a\nb", "Größe"])
async def test_free_text_from_callers_is_not_kept(vault: Vault, text: str) -> None:
    with acting_as(vault.me(purpose=text, request_id=text)), vault.audit.reading("user") as reading:
        reading.opened(new_id())
    await vault.audit.flush()
    (entry,) = await published(vault)
    assert (entry.purpose, entry.request_id) == ("other", "other")


async def test_without_a_caller_or_a_tenant_nothing_is_read(vault: Vault) -> None:
    with acting_as(Caller(tenant_id=None, subject="platform")), pytest.raises(Unauthenticated):
        vault.audit.reading("user")


async def test_a_full_spool_refuses_reads_until_it_is_emptied(vault: Vault, tmp_path: Path) -> None:
    audit = Audit(vault.name, vault.db, tmp_path / "small", max_bytes=1000)
    answered = 0

    def read() -> None:
        nonlocal answered
        while True:
            with audit.reading("user") as reading:
                reading.opened(new_id())
            answered += 1

    with pytest.raises(Unavailable) as refused:
        read()
    assert refused.value.retry_after_seconds
    assert 2 < answered < 20
    assert await audit.flush() == answered
    with audit.reading("user") as reading:
        reading.opened(new_id())
    assert await audit.flush() == 1
    assert len(await published(vault)) == answered + 1
    audit.close()


async def test_the_task_moves_entries_and_goes_on_after_an_outage(
    vault: Vault, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(audits, "RETRY_SECONDS", 0.05)

    async def moved(count: int) -> bool:
        return len(await published(vault)) >= count

    async with running(vault.audit):
        with vault.audit.reading("user") as reading:
            reading.opened(new_id())
        await eventually(lambda: moved(1))
    away = Audit(vault.name, Database(NOWHERE, NOWHERE), vault.folder / "spool")
    async with running(away):
        with away.reading("user") as reading:
            reading.opened(new_id())
        await asyncio.sleep(0)
    assert len(await published(vault)) == 1
    away.close()
    again = Audit(vault.name, vault.db, vault.folder / "spool")
    async with running(again):
        await eventually(lambda: moved(2))
    again.close()


async def test_a_crash_between_commit_and_delete_repeats_the_same_ids(vault: Vault) -> None:
    with vault.audit.reading("user") as reading:
        reading.opened(new_id())
    (path,) = (vault.folder / "spool" / vault.name).glob("*.spool")
    content = path.read_bytes()
    await vault.audit.flush()
    path.with_name("audit-1-dead.spool").write_bytes(content)
    again = Audit(vault.name, vault.db, vault.folder / "spool")
    again.claim()
    assert await again.flush() == 1
    first, second = await published(vault)
    assert first.id == second.id
    again.close()


READER = """
import sys
from pathlib import Path
from uuid import UUID
from libs.audit import Audit
from libs.caller import Caller, acting_as
from libs.db import Database
from libs.ids import new_id
audit = Audit(sys.argv[2], Database("postgresql+psycopg://", "postgresql+psycopg://"), Path(sys.argv[1]))
with acting_as(Caller(tenant_id=UUID(sys.argv[3]), subject="child")):
    while True:
        with audit.reading("user") as reading:
            reading.opened(person := new_id())
        print(person, flush=True)
"""


async def test_kill_9_loses_no_answered_read(vault: Vault) -> None:
    arguments = [str(vault.folder / "spool"), vault.name, str(vault.tenant_id)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, *arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout is not None
    answered = [await child.stdout.readline() for _ in range(500)]
    vault.audit.claim()
    assert await vault.audit.flush() == 0, "a living process keeps its file"
    child.kill()
    answered += [line for line in (await child.stdout.read()).splitlines(True) if line.endswith(b"\n")]
    await child.wait()
    vault.audit.claim()
    await vault.audit.flush()
    seen = {bytes(i) for entry in await published(vault) for i in entry.customer_ids}
    assert {UUID(line.decode().strip()).bytes for line in answered} <= seen
    assert list((vault.folder / "spool" / vault.name).glob("*.damaged")) == []


async def test_tenants_get_their_own_entries(vault: Vault) -> None:
    other = new_id()
    for tenant in (vault.tenant_id, other, vault.tenant_id):
        with acting_as(vault.me(tenant_id=tenant)), vault.audit.reading("user") as reading:
            reading.opened(tenant)
    await vault.audit.flush()
    for tenant, count in ((vault.tenant_id, 2), (other, 1)):
        with acting_as(vault.me(tenant_id=tenant)):
            assert [bytes(e.customer_ids[0]) for e in await published(vault)] == [tenant.bytes] * count


async def test_opening_many_rows_notes_each_person(vault: Vault) -> None:
    ids = [await vault.add(f"p{n}@example.com") for n in range(3)]
    async with vault.db.read() as tx:
        found = (await tx.execute(vaults.sealed_people())).all()
    rows = [SealedRow(row.id, row.id, row.key_id, row.epoch, row.wrapped, row.text) for row in found]
    keys = vault.keys.for_tenant(vault.tenant_id)
    with vault.audit.reading("user.contact.email") as reading:
        texts = keys.open_all(reading, vaults.TEXT, rows)
    assert sorted(texts) == [f"p{n}@example.com".encode() for n in range(3)]
    await vault.audit.flush()
    (entry,) = await published(vault)
    assert sorted(entry.customer_ids) == sorted(each.bytes for each in ids)


def test_a_torn_record_is_left_out_and_damage_is_set_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "audit", 10_000)
    for record in (b"one", b"two", b"three"):
        spool.append(record)
    spool.close()
    (path,) = tmp_path.glob("*.spool")
    whole = path.read_bytes()
    for content, expected, damaged in (
        (whole, [b"one", b"two", b"three"], 0),
        (whole[:-1], [b"one", b"two"], 0),
        (whole[:-10], [b"one", b"two"], 0),
        (whole.replace(b"two", b"2wo"), [b"one"], 1),
    ):
        path.write_bytes(content)
        heir = Spool(tmp_path, "audit", 10_000)
        assert heir.claim() == 1
        (segment,) = heir.cut()
        assert list(segment.records()) == expected
        assert len(list(tmp_path.glob("*.damaged"))) == damaged
        segment.done()
        heir.close()
    assert list(tmp_path.glob("*.spool")) == []


def test_a_full_disk_refuses_and_leaves_no_half_record(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from libs.spool import *\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "s = Spool(Path(sys.argv[1]), 'audit', 10_000); n = 0\n"
        "try:\n"
        "    while True: s.append(b'x' * 20); n += 1\n"
        "except SpoolFull: pass\n"
        "print(n, [len(r) for seg in s.cut() for r in seg.records()])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert run.stdout.strip() == "3 [20, 20, 20]"


def test_the_contract_has_its_categories() -> None:
    assert [fault for fault in faults("type") if "Access" in fault] == []
