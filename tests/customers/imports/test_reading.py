"""Files of rows: what they are, and what comes out of them."""

import contextlib
import csv
import datetime
import io
import json
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import xlsxwriter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from libs.problems import InvalidArgument
from services.customers.imports.reading import (
    BadCell,
    FileEmpty,
    FileFault,
    FileHeaderOnly,
    Layout,
    Number,
    check_layout,
    columns,
    detect,
    records,
    sheets,
)

TABLE = "name;stadt\nMüller;Köln\nJosé;Orléans\n"


def rows_of(raw: bytes, **layout: Any) -> list[tuple[int, list[str]]]:
    file = io.BytesIO(raw)
    found = detect(file, **layout)
    return [(record.row, list(record.cells)) for record in records(file, found)]


def workbook(*tables: tuple[str, Sequence[Any]]) -> bytes:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True})
    day = book.add_format({"num_format": "dd.mm.yyyy"})
    moment = book.add_format({"num_format": "dd.mm.yyyy hh:mm"})
    for name, table in tables:
        sheet = book.add_worksheet(name)
        for i, row in enumerate(table):
            for j, value in enumerate(row):
                if isinstance(value, datetime.datetime):
                    sheet.write_datetime(i, j, value, moment)
                elif isinstance(value, datetime.date):
                    sheet.write_datetime(i, j, datetime.datetime(value.year, value.month, value.day), day)
                else:
                    sheet.write(i, j, value)
    book.close()
    return out.getvalue()


@pytest.mark.parametrize(
    ("encoding", "told", "text"),
    [
        ("utf-8", "utf-8", TABLE),
        ("utf-8-sig", "utf-8", TABLE),
        ("utf-16", "utf-16-le", TABLE),
        ("utf-16-le", "utf-16-le", TABLE),
        ("utf-16-be", "utf-16-be", TABLE),
        ("cp1252", "cp1252", TABLE),
        ("latin-1", "cp1252", "Navn;By\nSøren;Århus\nBjørn;Ærø\n"),
        ("cp1250", "cp1250", "Imię;Miasto\nŻółć;Łódź\nWójcik;Kraków\n"),
        ("cp1251", "cp1251", "Имя;Город\nИван;Москва\nОльга;Тула\n"),
        ("cp1253", "cp1253", "Όνομα;Πόλη\nΓιώργος;Αθήνα\n"),
        ("koi8-r", "koi8-r", "Имя;Город\nИван;Москва\nОльга;Тула\n"),
        ("cp932", "cp932", "名前;住所\n山田太郎;東京都港区\n鈴木花子;大阪府\n"),
        ("euc_jp", "euc_jp", "名前;住所\n山田太郎;東京都港区\n鈴木花子;大阪府\n"),
        ("gb18030", "gb18030", "姓名;城市\n王伟;北京\n李娜;上海\n"),
    ],
)
def test_encodings_are_found_out_and_told(encoding: str, told: str, text: str) -> None:
    file = io.BytesIO(text.encode(encoding))
    layout = detect(file)
    assert (layout.encoding, layout.delimiter) == (told, ";")
    expected = [line.split(";") for line in text.splitlines()]
    assert columns(file, layout) == expected[0]
    assert [record.cells for record in records(file, layout)] == expected[1:]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_separators_are_found_out(delimiter: str) -> None:
    out = io.StringIO()
    table = [["Name", "City, state", "Price"], ["Lee, Ann", "a;b", "1,5"], ['the "one"', "x\ny", "2|3"]]
    csv.writer(out, delimiter=delimiter).writerows(table)
    assert [cells for _, cells in rows_of(out.getvalue().encode())] == table[1:]


def test_the_line_by_which_excel_names_the_separator_is_no_row() -> None:
    assert rows_of(b"sep=;\r\na;b\r\n1;2\r\n") == [(3, ["1", "2"])]


def test_rows_have_the_numbers_that_a_spreadsheet_shows() -> None:
    found = rows_of(b'name,note\nAnn,"two\nlines"\n\n,\nBob,x\n')
    assert found == [(2, ["Ann", "two\nlines"]), (5, ["Bob", "x"])]


def test_headers_that_are_missing_or_double_are_told() -> None:
    file = io.BytesIO(b"ann@example.com,Ann,12\nbob@example.com,Bob,13\n")
    layout = detect(file)
    assert not layout.has_header
    assert layout.notes
    assert columns(file, layout) == ["Column 1", "Column 2", "Column 3"]
    assert [record.row for record in records(file, layout)] == [1, 2]
    file = io.BytesIO(b"Name,Name,,Name (2)\na,b,c,d\n")
    layout = detect(file)
    assert columns(file, layout) == ["Name", "Name (3)", "Column 3", "Name (2)"]
    assert any("numbered" in note for note in layout.notes)


def test_rows_may_be_short_but_not_long() -> None:
    file = io.BytesIO(b"a,b,c\n1,2\n1,2,3,,\n1,2,3,4\n5,6,7\n")
    found = list(records(file, detect(file)))
    assert [record.cells for record in found if record.fault is None] == [
        ["1", "2", ""],
        ["1", "2", "3"],
        ["5", "6", "7"],
    ]
    (long,) = [record for record in found if record.fault]
    assert (long.row, long.fault and long.fault.reason) == (4, "ROW_TOO_MANY_CELLS")


def test_a_row_with_a_quote_that_does_not_close_is_refused_and_no_other() -> None:
    file = io.BytesIO(b'a,b\n1,2\n3,"open\n5,6\n"x"y,7\n8,9\n')
    found = list(records(file, detect(file)))
    assert [(r.row, r.fault.reason if r.fault else list(r.cells)) for r in found] == [
        (2, ["1", "2"]),
        (3, "ROW_QUOTES"),
        (4, ["5", "6"]),
        (5, "ROW_QUOTES"),
        (6, ["8", "9"]),
    ]


def test_bytes_that_are_no_text_make_a_bad_cell() -> None:
    file = io.BytesIO(b"name,city\nAnn\n" + b"J\xfcrgen,K\xc3\xb6ln\n" + "Zoë,Köln\n".encode())
    layout = detect(file)
    assert layout.encoding == "utf-8"
    found = list(records(file, layout))
    assert isinstance(found[1].cells[0], BadCell)
    assert found[1].cells[1] == "Köln"
    assert found[2].cells == ["Zoë", "Köln"]


def test_json_lines_and_arrays_are_flattened_once() -> None:
    objects = [
        {"email": "a@example.com", "address": {"city": "Rome"}, "n": 1.50, "ok": True, "tags": ["x", "y"]},
        {"email": None, "n": 12345678901234567890, "deep": {"a": {"b": 1}}},
    ]
    for raw in (json.dumps(objects, indent=1), "\n".join(map(json.dumps, objects))):
        file = io.BytesIO(raw.encode())
        layout = detect(file)
        assert columns(file, layout) == ["email", "address.city", "n", "ok", "tags", "deep.a"]
        first, second = records(file, Layout.of(json.loads(json.dumps(layout.to_json()))))
        assert list(first.cells) == ["a@example.com", "Rome", "1.5", "true", "x, y", ""]
        assert isinstance(first.cells[2], Number)
        assert second.cells[2] == "12345678901234567890"
        assert isinstance(second.cells[5], BadCell)


def test_a_key_twice_or_no_object_is_a_fault_of_the_row() -> None:
    file = io.BytesIO(b'{"a": 1}\n{"a": 1, "a": 2}\n[1]\n{"a": \n{"a": NaN}\n\n{"a": 3}\n')
    found = list(records(file, detect(file)))
    reasons = [(r.row, r.fault.reason if r.fault else list(r.cells)) for r in found]
    assert reasons == [
        (1, ["1"]),
        (2, "JSON_DUPLICATE_KEY"),
        (3, "JSON_NO_OBJECT"),
        (4, "JSON_BROKEN"),
        (5, "JSON_BROKEN"),
        (7, ["3"]),
    ]


def test_workbooks_give_dates_numbers_and_the_last_values_of_formulas() -> None:
    table = [
        ["Name", "Born", "At", "Amount", "Id", "Yes"],
        ["Ann <&>", datetime.date(1985, 4, 23), datetime.datetime(2024, 4, 23, 13, 5), 19.99, 12345678, True],
        [],
        ["Bob", "", "", 0.1 + 0.2, "007", False],
    ]
    raw = workbook(("Empty", []), ("Kunden", table))
    file = io.BytesIO(raw)
    layout = detect(file)
    assert (layout.format, layout.sheet, sheets(file)) == ("xlsx", "Kunden", ["Empty", "Kunden"])
    assert rows_of(raw) == [
        (2, ["Ann <&>", "1985-04-23", "2024-04-23T13:05:00", "19.99", "12345678", "true"]),
        (4, ["Bob", "", "", "0.3", "007", "false"]),
    ]


def test_a_formula_that_was_never_calculated_is_a_bad_cell() -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["a", "b"])
    book.active.append(["x", "=1+1"])
    book.active.append(["y", "#N/A"])
    out = io.BytesIO()
    book.save(out)
    file = io.BytesIO(out.getvalue())
    first, second = records(file, detect(file))
    assert isinstance(first.cells[1], BadCell)
    assert first.cells[1].reason == "CELL_FORMULA"
    assert isinstance(second.cells[1], BadCell)


def test_a_file_without_rows_is_told() -> None:
    for raw in (b"", b"\xef\xbb\xbf", b"  \r\n\n", b"[]"):
        with pytest.raises(FileEmpty):
            detect(io.BytesIO(raw))
    with pytest.raises(FileHeaderOnly):
        detect(io.BytesIO(b"name,email\n"))
    with pytest.raises(FileHeaderOnly):
        detect(io.BytesIO(workbook(("S", [["name", "email"]]))))


@pytest.mark.parametrize("skip", [0, 1, 2, 3, 5, 6, 7, 8, 50])
def test_reading_goes_on_after_any_row(skip: int) -> None:
    raws = [
        b'a,b\n1,2\n"x\n3,4\n\n5,"6\n7"\n8,9\n"a"b,c\n1,2,3\n4,5\n',
        workbook(("S", [["a", "b"], ["1", "2"], [], ["3", "4"], ["5", "6"], ["7", "8"]])),
        b'{"a":1}\n\n{"a":2}\nx\n{"a":3}\n{"a":4}\n',
        b'[{"a":1},{"a":2},3,{"a":4},{"a":5},{"a":6},{"a":7}]',
    ]
    for raw in raws:
        file = io.BytesIO(raw)
        layout = detect(file)
        everything = [(r.row, list(r.cells), r.fault) for r in records(file, layout)]
        rest = [(r.row, list(r.cells), r.fault) for r in records(file, layout, skip)]
        assert rest == [each for each in everything if each[0] > skip]


def test_skipping_rows_is_quick() -> None:
    count = 200_000
    raw = b"email,first,last,city\n" + b"".join(
        b"ann%d@example.com,Ann,Lee,Berlin\n" % i for i in range(count)
    )
    file = io.BytesIO(raw)
    layout = detect(file)
    began = time.process_time()
    assert sum(1 for _ in records(file, layout, count)) == 1
    assert count / (time.process_time() - began) > 150_000  # half of what is promised, on a busy machine


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff"), max_size=12)
tables = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=12)
)


@settings(max_examples=300, deadline=None)
@given(
    tables,
    st.sampled_from([",", ";", "\t", "|", ":", "^"]),
    st.sampled_from(['"', "'"]),
    st.sampled_from(["\r\n", "\n", "\r"]),
    st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "cp1252", "cp932", "gb18030"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_what_csv_writes_reads_back_the_same(
    table: list[list[str]], delimiter: str, quote: str, end: str, encoding: str, quoting: Any
) -> None:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quotechar=quote, lineterminator=end, quoting=quoting).writerows(
        table
    )
    try:
        raw = out.getvalue().encode(encoding)
        assume(raw.decode(encoding) == out.getvalue())
    except UnicodeError:
        assume(False)
    assume(any(cell.strip() for cell in table[0]) and table[0][-1].strip())
    layout = Layout("csv", encoding=encoding, delimiter=delimiter, quote=quote, has_header=False)
    file = io.BytesIO(raw)
    assert [r.cells for r in records(file, layout)] == [row for row in table if any(row)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")), max_size=9),
            min_size=3,
            max_size=3,
        ),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_is_found_out_reads_back_the_same(table: list[list[str]], delimiter: str, encoding: str) -> None:
    assume(all(any(row) for row in table))
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["Name", "City", "Note"], *table])
    assert [row for _, row in rows_of(out.getvalue().encode(encoding))] == table


@pytest.mark.parametrize("delimiter", ["", ",,", "\n", '"', " "])
def test_a_layout_that_cannot_be_is_told(delimiter: str) -> None:
    layout = Layout("csv", encoding="klingon", delimiter=delimiter)
    with pytest.raises(InvalidArgument) as refused:
        check_layout(layout)
    assert [each.field for each in refused.value.violations][:2] == ["layout.encoding", "layout.delimiter"]
    for encoding in ("klingon", "utf-8"):
        with contextlib.suppress(FileFault):
            columns(io.BytesIO(b"a,b\n1,2\n"), replace(layout, encoding=encoding))


def test_a_large_sheet_is_read_in_little_memory() -> None:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"constant_memory": True})
    sheet = book.add_worksheet("S")
    for i in range(20_000):
        sheet.write_row(i, 0, [f"ann{i}@example.com", "Ann", "Lee", "+493012345678", i / 4, "Berlin"])
    book.close()
    file = io.BytesIO(out.getvalue())
    tracemalloc.start()
    layout = detect(file)
    count = sum(1 for _ in records(file, layout))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 16 * 1024 * 1024
