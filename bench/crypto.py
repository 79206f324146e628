"""Prints what sealing, opening, finding and noting a read cost in µs: the least of five runs, one thread.

    .venv/bin/python -m bench.crypto

The bare operations of `cryptography` stand beside ours, measured in the same run.
"""

import os
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs import clock
from libs.audit import Audit
from libs.caller import Caller, acting_as
from libs.crypto import Column, Kind, LiveVersions, SealedRow, TenantKeys, open_keys
from libs.crypto.master import new_master_key
from libs.db import Database
from libs.ids import new_id

PII = Column("customers", "pii")
PERSON = {
    "first": "Ann",
    "last": "Example",
    "email": "ann@example.com",
    "phone": "+15550100",
    "born": "1990-01-31",
}
BATCH = 1000


def us(run: Callable[[], object], number: int, per: int = 1) -> float:
    """Microseconds for one."""
    return min(timeit.repeat(run, number=number, repeat=5)) / number / per * 1e6


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        keys = open_keys("bench", Path(folder) / "keystore", new_master_key())
        nowhere = Database("postgresql+psycopg://", "postgresql+psycopg://")
        audit = Audit("bench", nowhere, Path(folder) / "spool", max_bytes=1 << 40)
        tenant_id = new_id()
        keys.keystore.create_tenant(tenant_id)
        with acting_as(Caller(tenant_id=tenant_id, subject="bench", method="/bench/Get", request_id="r-1")):
            table = _ours(keys.for_tenant(tenant_id), audit) + _bare()
        audit.close()
    for name, cost in table:
        print(f"{cost:8.2f}  {name}")


def _ours(tenant: TenantKeys, audit: Audit) -> list[tuple[str, float]]:
    ones: dict[Kind, int] = dict.fromkeys(Kind, 1)
    live = LiveVersions(tenant.tenant_id, ones, dict.fromkeys(Kind, (1,)), {})
    text = orjson.dumps(PERSON)
    rows = []
    for _ in range(BATCH):
        person = new_id()
        row, key = tenant.new_subject_key(live, person, clock.now())
        sealed = tenant.seal(key, PII, person, text)
        rows.append(SealedRow(person, person, row.key_id, row.epoch, row.wrapped, sealed))
    one, now = rows[0], clock.now()
    data_key = tenant.unwrap(one.key_id, one.epoch, one.wrapped)

    def read_one() -> object:
        with audit.reading("user.name", "user.contact.email") as reading:
            key = tenant.unwrap(one.key_id, one.epoch, one.wrapped)
            return tenant.open(reading, one.customer_id, key, PII, one.row_id, one.sealed)

    def read_many() -> object:
        with audit.reading("user.name", "user.contact.email") as reading:
            return tenant.open_all(reading, PII, rows)

    def note() -> None:
        with audit.reading("user.name", "user.contact.email") as reading:
            reading.opened(one.customer_id)

    with audit.reading("user") as reading:
        table = [
            (f"seal, {len(text)} bytes", us(lambda: tenant.seal(data_key, PII, one.row_id, text), 20_000)),
            ("unwrap a data key", us(lambda: tenant.unwrap(one.key_id, 1, one.wrapped), 20_000)),
            (
                "open",
                us(
                    lambda: tenant.open(reading, one.customer_id, data_key, PII, one.row_id, one.sealed),
                    20_000,
                ),
            ),
            ("new data key, wrapped", us(lambda: tenant.new_subject_key(live, one.row_id, now), 20_000)),
            ("blind index", us(lambda: tenant.blind_indexes(live, "email", "ann@example.com"), 20_000)),
            ("re-wrap a data key", us(lambda: tenant.rewrap(one.key_id, one.wrapped or b"", 1, 1), 20_000)),
        ]
    return [
        *table,
        ("note one read (entry in the spool)", us(note, 5_000)),
        ("read one: unwrap, open, note", us(read_one, 5_000)),
        (f"read {BATCH}, each: unwrap, open, note", us(read_many, 20, BATCH)),
    ]


def _bare() -> list[tuple[str, float]]:
    secret, nonce, text = os.urandom(32), os.urandom(12), orjson.dumps(PERSON)
    sealed = AESGCM(secret).encrypt(nonce, text, b"place")
    return [
        (
            "limit: new AESGCM, nonce, encrypt",
            us(lambda: AESGCM(secret).encrypt(os.urandom(12), text, b"p"), 20_000),
        ),
        ("limit: new AESGCM, decrypt", us(lambda: AESGCM(secret).decrypt(nonce, sealed, b"place"), 20_000)),
    ]


if __name__ == "__main__":
    main()
