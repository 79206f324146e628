"""Files that are broken, foreign or made to do harm: a clear fault, in bounded time and memory."""

import contextlib
import io
import random
import resource
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.customers.imports.reading import (
    FileBomb,
    FileDamaged,
    FileEncrypted,
    FileFault,
    FileNotReadable,
    FileTooWide,
    Layout,
    SheetMissing,
    columns,
    detect,
    records,
)
from tests.customers.imports.test_reading import workbook

WORKBOOK = workbook(("S", [["name", "email"], ["Ann", "ann@example.com"], ["Bob", "bob@example.com"]]))
MEGABYTE = 1024 * 1024


def read_all(raw: bytes) -> int:
    """Reads a file to its end; gives how many records it had."""
    file = io.BytesIO(raw)
    layout = detect(file)
    columns(file, layout)
    return sum(1 for _ in records(file, layout))


def changed(raw: bytes, name: str, content: bytes) -> bytes:
    """A workbook with another content of one part."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))
    return out.getvalue()


def without(raw: bytes, name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.namelist():
            if entry != name:
                new.writestr(entry, old.read(entry))
    return out.getvalue()


LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY a%d "%s">' % (i, (b"&a%d;" % (i - 1) if i else b"&a;") * 10) for i in range(12))
    + b"]><sst><si><t>&a11;</t></si></sst>"
)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), FileNotReadable),
        (b"%PDF-1.7 ...", FileNotReadable),
        (b"\x1f\x8b\x08" + bytes(50), FileNotReadable),
        (b"<html><table><tr><td>x</td></tr></table></html>", FileNotReadable),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), FileNotReadable),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le"),
            FileEncrypted,
        ),
        (bytes(range(256)) * 40, FileNotReadable),
        (random.Random(7).randbytes(20_000), FileNotReadable),
        (bytes(5000), FileFault),
        (b"\xff" * 5000, FileFault),
        (b"x" * (10 * MEGABYTE), FileNotReadable),
        (b",".join(b"c%d" % i for i in range(10_000)) + b"\n1\n", FileTooWide),
        (WORKBOOK[: len(WORKBOOK) // 2], FileDamaged),
        (WORKBOOK[:-30], FileDamaged),
        (without(WORKBOOK, "xl/worksheets/sheet1.xml"), SheetMissing),
        (without(WORKBOOK, "xl/workbook.xml"), FileNotReadable),
        (changed(WORKBOOK, "xl/sharedStrings.xml", LAUGHS), FileBomb),
        (changed(WORKBOOK, "xl/workbook.xml", LAUGHS), FileBomb),
        (changed(WORKBOOK, "xl/worksheets/sheet1.xml", b"0" * (50 * MEGABYTE)), FileBomb),
        (changed(WORKBOOK, "xl/worksheets/sheet1.xml", b"<worksheet><sheetData><row"), FileFault),
        (b"[" * 100_000, FileFault),
        (b'{"a":' * 100_000, FileFault),
        (b'{"a": "' + b"x" * (5 * MEGABYTE), FileFault),
    ],
    ids=range(23),
)
def test_the_file_is_refused_before_any_row(raw: bytes, fault: type[FileFault]) -> None:
    began = time.process_time()
    with pytest.raises(fault) as refused:
        read_all(raw)
    assert refused.value.message
    assert time.process_time() - began < 5


def test_an_entry_that_lies_about_its_size_is_no_way_in() -> None:
    raw = bytearray(changed(WORKBOOK, "xl/worksheets/sheet1.xml", b" " * (30 * MEGABYTE)))
    size = (30 * MEGABYTE).to_bytes(4, "little")
    while (at := raw.find(size)) >= 0:
        raw[at : at + 4] = (1000).to_bytes(4, "little")
    with pytest.raises(FileFault):
        read_all(bytes(raw))


def test_a_password_is_told() -> None:
    raw = bytearray(WORKBOOK)
    at = raw.find(b"PK\x01\x02")
    raw[at + 8] |= 1
    with pytest.raises(FileEncrypted):
        read_all(bytes(raw))


def test_macros_and_files_inside_are_never_opened() -> None:
    out = io.BytesIO(WORKBOOK)
    with zipfile.ZipFile(out, "a") as book:
        book.writestr("xl/vbaProject.bin", b"\xd0\xcf\x11\xe0" + bytes(100))
        book.writestr("xl/embeddings/inner.xlsx", WORKBOOK)
        book.writestr("../../outside.txt", b"x")
    assert read_all(out.getvalue()) == 2


def test_a_bad_checksum_is_seen_before_any_row() -> None:
    raw = bytearray(WORKBOOK)
    crc = zlib.crc32(zipfile.ZipFile(io.BytesIO(WORKBOOK)).read("xl/worksheets/sheet1.xml")).to_bytes(
        4, "little"
    )
    while (at := raw.find(crc)) >= 0:
        raw[at : at + 4] = b"\x01\x02\x03\x04"
    with pytest.raises(FileDamaged):
        read_all(bytes(raw))


def test_a_very_long_line_is_one_refused_row() -> None:
    raw = b"a,b\n1,2\n" + b"x" * (10 * MEGABYTE) + b",y\n3,4\n"
    file = io.BytesIO(raw)
    layout = detect(file)
    tracemalloc.start()
    found = list(records(file, layout))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(r.row, r.fault and r.fault.reason) for r in found] == [(2, None), (3, "ROW_TOO_LONG"), (4, None)]
    assert peak < 16 * MEGABYTE


def seconds_of_reading(line: bytes) -> float:
    """CPU seconds for a megabyte of such lines."""
    raw = b"a,b\n1,2\n" + line * (MEGABYTE // len(line))
    file = io.BytesIO(raw)
    began = time.process_time()
    for _ in records(file, Layout("csv", encoding="utf-8", delimiter=",")):
        pass
    return time.process_time() - began


@pytest.mark.parametrize(
    "line", [b'x",""",\n', b'"\n', b'"a\n', b'a,"b\n', b'"""\n', b'"a","b\n', b'x,"' + b"y" * 200 + b"\n"]
)
def test_quotes_that_never_close_take_no_time_without_end(line: bytes) -> None:
    assert seconds_of_reading(line) < 20 * seconds_of_reading(
        b"1,2\n"
    )  # each byte looked at again: thousands


def test_nul_and_control_characters_do_not_stop_the_file() -> None:
    file = io.BytesIO(b"name,email\nA\x00nn,a@example.com\nBob,b@example.com\n" + b"Cy,c@example.com\n" * 100)
    assert sum(record.fault is None for record in records(file, detect(file))) == 102


def test_huge_numbers_and_dates_are_cells_without_a_value() -> None:
    raw = b'{"n": %s, "m": 1e999999999, "k": -1e-9999999}\n' % (b"9" * 5000)
    file = io.BytesIO(raw)
    (record,) = records(file, detect(file))
    assert [getattr(cell, "reason", "") for cell in record.cells] == ["CELL_NUMBER"] * 3


def test_a_large_file_needs_little_memory() -> None:
    line = b"ann@example.com,Ann,Lee,+493012345678,1985-04-23,Berlin\n"
    file = io.BytesIO(b"email,first,last,phone,born,city\n" + line * 300_000)
    tracemalloc.start()
    layout = detect(file)
    count = sum(1 for _ in records(file, layout))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 300_000
    assert peak < 8 * MEGABYTE


def test_a_bomb_dies_on_its_own_in_a_small_process() -> None:
    """All of it within 400 MB of address space beyond what the modules take, and 20 s of work."""
    bombs = [
        changed(
            WORKBOOK, "xl/sharedStrings.xml", b"<sst><si><t>" + b"x" * (3 * MEGABYTE) + b"</t></si></sst>"
        ),
        changed(
            WORKBOOK,
            "xl/worksheets/sheet1.xml",
            b"<worksheet><sheetData>"
            + b'<row><c t="str"><v>x</v></c></row>' * 100_000
            + b"</sheetData></worksheet>",
        ),
        b"[" + b"[" * 500_000,
    ]
    script = (
        "import sys, io, resource\n"
        "from services.customers.imports.reading import detect, records, FileFault\n"
        "resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[0],) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (400_000_000, 400_000_000))\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        "file = io.BytesIO(sys.stdin.buffer.read())\n"
        "try:\n"
        "    print(sum(1 for _ in records(file, detect(file))))\n"
        "except FileFault as fault:\n"
        "    print(fault.reason)\n"
    )
    for raw in bombs:
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=raw,
            capture_output=True,
            check=False,
            env={"PYTHONPATH": ".:gen", "PATH": "/usr/bin"},
        )
        assert done.returncode == 0, done.stderr[-500:]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 500_000


SEEDS = [
    b"",
    b"a,b\n1,2\n",
    b'{"a":1}\n',
    b'[{"a":1}]',
    WORKBOOK,
    "a;ü\n".encode("cp1252"),
    b"PK\x03\x04",
    b"\xff\xfe",
]


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=400), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    )
)
@example(b"\xff")
@example(b"\x00")
@example(b"[{}")
@example(b"\xef\xbb\xbf\xff")
@example(b'"')
@example(b"sep=,\n")
@example(b"\r")
def test_any_bytes_are_records_or_a_fault(raw: bytes) -> None:
    with contextlib.suppress(FileFault):
        read_all(raw)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(SEEDS), st.data())
def test_any_damage_is_records_or_a_fault(seed: bytes, data: st.DataObject) -> None:
    raw = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    with contextlib.suppress(FileFault):
        read_all(bytes(raw))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=2000))
def test_any_sheet_is_records_or_a_fault(content: bytes) -> None:
    sheet = (
        b"<worksheet><sheetData><row><c t='str'><v>a</v></c></row>" + content + b"</sheetData></worksheet>"
    )
    with contextlib.suppress(FileFault):
        read_all(changed(WORKBOOK, "xl/worksheets/sheet1.xml", sheet))


def test_ways_of_packing_that_no_spreadsheet_uses_are_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WORKBOOK)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as new:
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    with pytest.raises(FileDamaged):
        read_all(out.getvalue())
