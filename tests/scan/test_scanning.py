"""The scan for personal data finds what is there, in whatever form, and nothing else."""

import base64
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scan.at_the_end import patterns_of
from tests.scan.scanning import CHUNK, Report, forms_of, scan_bytes, scan_files
from tests.scan.sentinels import Sentinels

VALUE = "qwzkvjxnpbtlrmsd"
FORMS: dict[str, Callable[[str], bytes]] = {
    "text": str.encode,
    "capitals": lambda value: value.upper().encode(),
    "name": lambda value: value.capitalize().encode(),
    "utf-16-le": lambda value: value.encode("utf-16-le"),
    "utf-16-be": lambda value: value.encode("utf-16-be"),
    "hex": lambda value: value.encode().hex().encode(),
    "HEX": lambda value: value.encode().hex().upper().encode(),
    "bytea of a name": lambda value: b"\\x" + value.capitalize().encode().hex().encode(),
    "base64 of utf-16": lambda value: base64.b64encode(value.encode("utf-16-le")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_found_in_the_middle_of_anything(form: str) -> None:
    data = secrets.token_bytes(1000) + FORMS[form](VALUE) + secrets.token_bytes(1000)
    assert list(scan_bytes("x", data, forms_of(VALUE)))


@pytest.mark.parametrize("before", range(4))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_wherever_the_value_begins(before: int, encode: Callable[[bytes], bytes]) -> None:
    coded = encode(b"a" * before + VALUE.capitalize().encode() + b"@example.com")
    assert list(scan_bytes("x", coded, forms_of(VALUE)))


def test_nothing_is_found_in_noise() -> None:
    assert not list(scan_bytes("x", secrets.token_bytes(1 << 20), forms_of(VALUE)))
    assert not list(scan_bytes("x", VALUE[:-1].encode() * 100, forms_of(VALUE)))


def test_a_value_across_two_chunks_and_one_in_a_file_name_are_found(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (CHUNK - 5) + VALUE.encode())
    (tmp_path / VALUE).touch()
    report = Report()
    scan_files(report, [tmp_path], forms_of(VALUE))
    assert {hit.offset for hit in report.hits if "name" not in hit.place} == {CHUNK - 5}
    assert len(report.hits) == 2
    assert (report.files, report.size) == (2, CHUNK - 5 + len(VALUE))


def test_every_kind_of_sentinel_has_a_pattern(tmp_path: Path) -> None:
    run = Sentinels(tmp_path)
    patterns = patterns_of(run)
    for value in (run.name(), run.email(), run.phone(), run.text(), run.birth_date, run.word()):
        assert list(scan_bytes("x", f"before {value} after".encode(), patterns)), value
    assert not list(scan_bytes("x", b"+4915112345678 1988-02-29 Zoe", patterns))
