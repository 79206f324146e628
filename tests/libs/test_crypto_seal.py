"""Laws of sealed values, wrapped data keys and blind indexes."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.audit import Audit, NoReading, Reading
from libs.caller import Caller, acting_as
from libs.crypto import Column, DataKey, SealBroken, key_id_of, subject_keys
from libs.crypto.blind_index import blind_index
from libs.crypto.seal import OVERHEAD_BYTES, open_sealed, seal
from libs.db import Database
from libs.ids import new_id

PII = Column("customers", "pii")
TENANT, ROW = new_id(), new_id()
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Reading]:
    nowhere = Database("postgresql+psycopg://", "postgresql+psycopg://")
    audit = Audit("test", nowhere, tmp_path)
    with acting_as(Caller(tenant_id=TENANT, subject="tester")), audit.reading("user") as reading:
        yield reading
    audit.close()


def a_key() -> DataKey:
    return DataKey(new_id(), os.urandom(32))


@quick
@given(st.binary(max_size=2000), st.uuids(), st.uuids())
def test_what_is_sealed_opens_in_its_place(reading: Reading, text: bytes, tenant: UUID, row: UUID) -> None:
    key = a_key()
    sealed = seal(key, PII.at(tenant, row), text)
    assert open_sealed(reading, row, key, PII.at(tenant, row), sealed) == text
    assert key_id_of(sealed) == key.key_id
    assert len(sealed) == len(text) + OVERHEAD_BYTES
    assert seal(key, PII.at(tenant, row), text) != sealed


@quick
@given(st.binary(max_size=100), st.data())
def test_any_changed_byte_is_noticed(reading: Reading, text: bytes, data: st.DataObject) -> None:
    key = a_key()
    sealed = bytearray(seal(key, PII.at(TENANT, ROW), text))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealBroken):
        open_sealed(reading, ROW, key, PII.at(TENANT, ROW), bytes(sealed))


@quick
@given(st.binary(max_size=100), st.data())
def test_a_value_cut_short_is_noticed(reading: Reading, text: bytes, data: st.DataObject) -> None:
    key = a_key()
    sealed = seal(key, PII.at(TENANT, ROW), text)
    with pytest.raises(SealBroken):
        open_sealed(
            reading, ROW, key, PII.at(TENANT, ROW), sealed[: data.draw(st.integers(0, len(sealed) - 1))]
        )


@quick
@given(st.binary(max_size=80))
def test_what_is_no_sealed_value_is_refused(reading: Reading, junk: bytes) -> None:
    with pytest.raises(SealBroken):
        open_sealed(reading, ROW, a_key(), PII.at(TENANT, ROW), junk)


@pytest.mark.parametrize(
    "elsewhere",
    [
        PII.at(new_id(), ROW),
        PII.at(TENANT, new_id()),
        Column("customers", "notes").at(TENANT, ROW),
        Column("orders", "pii").at(TENANT, ROW),
        Column("customersp", "ii").at(TENANT, ROW),
    ],
    ids=["tenant", "row", "column", "table", "border"],
)
def test_a_value_cannot_be_moved(reading: Reading, elsewhere: bytes) -> None:
    key = a_key()
    sealed = seal(key, PII.at(TENANT, ROW), b"text")
    with pytest.raises(SealBroken):
        open_sealed(reading, ROW, key, elsewhere, sealed)  # type: ignore[arg-type]  # a Place of our own


def test_another_key_does_not_open_it(reading: Reading) -> None:
    key = a_key()
    sealed = seal(key, PII.at(TENANT, ROW), b"text")
    for other in (a_key(), DataKey(key.key_id, os.urandom(32))):
        with pytest.raises(SealBroken):
            open_sealed(reading, ROW, other, PII.at(TENANT, ROW), sealed)


def test_nothing_opens_before_or_after_a_reading(tmp_path: Path) -> None:
    key = a_key()
    sealed = seal(key, PII.at(TENANT, ROW), b"text")
    audit = Audit("test", Database("postgresql+psycopg://", "postgresql+psycopg://"), tmp_path)
    with acting_as(Caller(tenant_id=TENANT, subject="tester")):
        reading = audit.reading("user")
        with pytest.raises(NoReading):
            open_sealed(reading, ROW, key, PII.at(TENANT, ROW), sealed)
        with reading:
            assert open_sealed(reading, ROW, key, PII.at(TENANT, ROW), sealed) == b"text"
        with pytest.raises(NoReading):
            open_sealed(reading, ROW, key, PII.at(TENANT, ROW), sealed)
    audit.close()


def test_column_names_are_plain() -> None:
    with pytest.raises(ValueError, match="is no column"):
        Column("a b", "c")
    with pytest.raises(ValueError, match="is no column"):
        Column("a", "b\0")


@given(st.binary(min_size=32, max_size=32), st.uuids(), st.uuids())
def test_wrapped_data_keys_are_bound_to_tenant_and_id(secret: bytes, tenant: UUID, key_id: UUID) -> None:
    kek = AESGCM(os.urandom(32))
    wrapped = subject_keys.wrap(kek, tenant, key_id, secret)
    assert subject_keys.unwrap(kek, tenant, key_id, wrapped) == secret
    for other_kek, other_tenant, other_id, other in (
        (AESGCM(os.urandom(32)), tenant, key_id, wrapped),
        (kek, new_id(), key_id, wrapped),
        (kek, tenant, new_id(), wrapped),
        (kek, tenant, key_id, wrapped[:-1]),
        (kek, tenant, key_id, b"\x02" + wrapped[1:]),
        (kek, tenant, key_id, b""),
    ):
        with pytest.raises(SealBroken):
            subject_keys.unwrap(other_kek, other_tenant, other_id, other)


@given(st.binary(min_size=32, max_size=32), st.text(max_size=50), st.text(max_size=50))
def test_blind_indexes_are_equal_exactly_for_equal_values(key: bytes, one: str, other: str) -> None:
    index = blind_index(key, "email", one)
    assert len(index) == 16
    assert (index == blind_index(key, "email", other)) == (one == other)
    assert index != blind_index(key, "phone", one)
    assert index != blind_index(os.urandom(32), "email", one)
