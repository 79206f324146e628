"""What exports write, without any server."""

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import openpyxl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libs.problems import Faults
from regulars.customers.v1 import exports_pb2 as pb
from services.customers.businesses.rules import DATE, NUMBER, TEXT, AttributeDefinition
from services.customers.exports import columns, sheets
from services.customers.exports.columns import Column, Person
from services.customers.exports.problems import SheetTooLong
from services.customers.exports.rules import guarded, risky, unguarded
from services.customers.exports.sheets import Workbook, decimal, letters_of
from services.customers.exports.writing import Writer, writer_of
from services.customers.imports import reading, targets
from services.customers.imports.mapping import guess
from services.customers.imports.rows import Facts, Parsed, RowReader
from services.customers.profiles.rules import Profile

AT = datetime(2026, 3, 14, 15, 9, 26, 535897, tzinfo=UTC)
ID = UUID("01a1fdb1-fb7a-7ab5-b6b9-5c9ff564ed58")
DEFINITIONS = {
    "colour": AttributeDefinition("colour", TEXT),
    "shoe_size": AttributeDefinition("shoe_size", NUMBER, not_personal=True),
    "since": AttributeDefinition("since", DATE, not_personal=True),
    "email": AttributeDefinition("email", TEXT),
}
FORMULAS = [
    "=1+1",
    "+1+1",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "＝1+1",
    "＋1+1",
    "－1+1",
    "＠A1",
    " =1",
    "\u200b=1",
    "'=1",
]


def chosen(*names: str) -> tuple[Column, ...]:
    faults = Faults()
    found = columns.chosen(names, "EUR", DEFINITIONS, faults)
    faults.refuse()
    return found


def person(**profile: object) -> Person:
    row = dict.fromkeys(
        ("last_active_at", "first_order_at", "favourite_category", "favourite_brand", "lifecycle_stage")
    )
    counts = dict.fromkeys(
        (
            *("orders_completed", "total_spent_minor", "refunded_minor", "net_minor", "average_order_minor"),
            *("items", "visits"),
        ),
        0,
    )
    known = {
        **row,
        **counts,
        **{
            "status": 3,
            "type": 2,
            "tags": ["tea", "new"],
            "source": "csv",
            "attributes": {"shoe_size": 44.5},
        },
        **{"email_verified": True, "phone_verified": False},
        **dict.fromkeys(("joined_at", "created_at", "updated_at", "last_order_at"), AT),
    }
    known["total_spent_minor"] = 123456
    return Person(
        ID,
        known,
        profile,
        {"attributes": {"colour": "red"}, "sources": [["csv", "C-1", ""]]},
        {"street_lines": ["1 Main St", "Back"], "city": "Bonn"},
    )


def file_of(form: int, people: Sequence[Person], *names: str) -> bytes:
    writer = writer_of(form, chosen(*names), ())
    return b"".join([writer.begin(), writer.rows(people), writer.end()])


def as_csv(people: Sequence[Person], *names: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(file_of(pb.EXPORT_FORMAT_CSV, people, *names).decode("utf-8-sig"))))


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_kept_from_being_run(text: str) -> None:
    safe = guarded(text)
    assert safe[0] == "'"
    assert text[0] in "\t\r" or (safe, unguarded(safe)) == ("'" + text, text)


@pytest.mark.parametrize(
    "text", ["+4930123456", "-12", "+1.5", "-0,5", "007", "Ann", "a=b", "x@y.org", "A-1", "O'Hara"]
)
def test_numbers_phones_and_words_stay_as_they_are(text: str) -> None:
    assert guarded(text) == text
    assert unguarded(text) == text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("a;=cmd|' /C calc'!A0", "a;'=cmd|' /C calc'!A0"),
        ('a;"=1+1', "a;'\"=1+1"),
        ("a\t=1", "a\t'=1"),
        ("a\n@x", "a\n'@x"),
        ("+49 30 123", "'+49 30 123"),
        ("+49-30-1", "'+49-30-1"),
    ],
)
def test_a_formula_cannot_hide_behind_another_separator(text: str, safe: str) -> None:
    assert guarded(text) == safe


@given(st.text())
@example("0\n=")
def test_what_is_guarded_begins_no_formula_in_any_cell(text: str) -> None:
    safe = guarded(text)
    assert (safe != text) == risky(text)
    for cell in safe.replace("\t", ";").replace("\r", ";").replace("\n", ";").split(";"):
        begins = cell.strip().lstrip("\"'")[:1]
        assert not begins or begins not in "=@＝＠" or cell.lstrip().startswith("'")


def test_csv_has_a_mark_headers_and_a_line_for_each() -> None:
    found = file_of(
        pb.EXPORT_FORMAT_CSV, [person(first_name="Zoë", phone="+4930123456")], "first_name", "phone", "tags"
    )
    assert found.startswith(b"\xef\xbb\xbf")
    assert found.decode("utf-8-sig") == 'First name,Phone,Tags\r\nZoë,+4930123456,"tea, new"\r\n'


def test_values_are_written_as_their_kinds_are() -> None:
    names = (
        "status",
        "email_verified",
        "external_id",
        "created_at",
        "address.street_lines",
        "total_spent",
        "currency",
    )
    (header, row) = as_csv(
        [person()], *names, "attributes.colour", "attributes.shoe_size", "attributes.since"
    )
    assert header == [
        *("Status", "Email verified", "Customer ID", "Created at", "Street", "Total spent", "Currency"),
        *("colour", "shoe_size", "since"),
    ]
    assert row == [
        *("VIP", "true", "C-1", "2026-03-14T15:09:26.535897Z", "1 Main St, Back", "1234.56", "EUR"),
        *("red", "44.5", ""),
    ]


def test_an_attribute_that_is_called_like_a_field_has_a_header_of_its_own() -> None:
    assert [column.label for column in chosen("email", "attributes.email")] == ["Email", "attribute.email"]


def test_json_lines_hold_values_as_they_are() -> None:
    names = (
        "first_name",
        "tags",
        "total_spent",
        "created_at",
        "email_verified",
        "attributes.shoe_size",
        "gender",
    )
    (line,) = file_of(pb.EXPORT_FORMAT_JSONL, [person(first_name="=1+1")], *names).splitlines()
    assert json.loads(line) == {
        "first_name": "=1+1",
        "tags": ["tea", "new"],
        "total_spent": 1234.56,
        "created_at": "2026-03-14T15:09:26.535897Z",
        "email_verified": True,
        "attributes.shoe_size": 44.5,
    }


def test_a_workbook_opens_with_texts_numbers_and_dates() -> None:
    texts = [*FORMULAS, "+4930123456", " a & b < c ", "x\x1fy", "_x0041_", "line\nbreak"]
    people = [person(first_name=text, born_on="1985-04-23") for text in texts]
    found = file_of(
        *(pb.EXPORT_FORMAT_XLSX, people),
        *(
            "first_name",
            "born_on",
            "total_spent",
            "created_at",
            "email_verified",
            "attributes.since",
            "attributes.shoe_size",
        ),
    )
    assert zipfile.ZipFile(io.BytesIO(found)).testzip() is None
    sheet = openpyxl.load_workbook(io.BytesIO(found)).active
    assert sheet is not None
    rows = list(sheet.iter_rows())
    assert [cell.value for cell in rows[0]] == [
        *("First name", "Date of birth", "Total spent", "Created at", "Email verified", "since", "shoe_size")
    ]
    for text, row in zip(texts, rows[1:], strict=True):
        assert row[0].data_type in {"s", "inlineStr"}
        # openpyxl leaves "_x001F_" to the reader, and ends lines with line feeds
        assert (
            str(row[0].value).replace("_x000D_", "\r").replace("_x001F_", "\x1f").replace("_x005F_", "_")
            == text
        )
        assert row[0].quotePrefix is risky(text)
        assert row[1].value == datetime(1985, 4, 23)
        assert (row[2].value, row[4].value, row[5].value, row[6].value) == (1234.56, True, None, 44.5)
        assert abs(row[3].value.replace(tzinfo=UTC) - AT).total_seconds() < 1


def through_pieces(form: int, people: Sequence[Person], *names: str) -> bytes:
    """The same file, each customer written by a writer that knows the state of the one before and nothing else."""
    writer: Writer = writer_of(form, chosen(*names), ())
    out = [writer.begin(), writer.pause()]
    for each in people:
        writer = writer_of(form, chosen(*names), (), json.loads(json.dumps(writer.state)))
        out += [writer.rows([each]), writer.pause()]
    writer = writer_of(form, chosen(*names), (), json.loads(json.dumps(writer.state)))
    return b"".join([*out, writer.end()])


@pytest.mark.parametrize("form", [pb.EXPORT_FORMAT_CSV, pb.EXPORT_FORMAT_JSONL, pb.EXPORT_FORMAT_XLSX])
def test_another_process_can_go_on_anywhere(form: int) -> None:
    people = [person(first_name=f"Person {i}", email=f"p{i}@example.com") for i in range(50)]
    whole, pieces = (make(form, people, "profile", "metrics") for make in (file_of, through_pieces))
    if form == pb.EXPORT_FORMAT_XLSX:
        parts = [zipfile.ZipFile(io.BytesIO(found)) for found in (whole, pieces)]
        assert parts[1].testzip() is None
        sheet = [each.read("xl/worksheets/sheet1.xml") for each in parts]
        assert sheet[0] == sheet[1]
    else:
        assert whole == pieces


def test_a_sheet_ends_where_excel_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST_ROWS", 2)
    writer = Workbook(chosen("first_name"))
    writer.begin()
    writer.rows([person(), person()])
    with pytest.raises(SheetTooLong):
        writer.rows([person()])


def test_what_is_masked_is_known_by_its_category() -> None:
    masks = frozenset(("user.contact", "user.name"))
    masked = [column.name for column in chosen() if column.masked(masks)]
    assert masked == [
        *(
            "first_name",
            "last_name",
            "full_name",
            "email",
            "phone",
            "address.recipient",
            "address.street_lines",
        ),
        *("address.city", "address.state", "address.postal_code", "address.country"),
    ]


def test_columns_are_chosen_by_name_or_group() -> None:
    assert columns.names(chosen("email", "metrics", "email"[:0] or "id"))[:2] == ["email", "order_count"]
    assert len(chosen()) == len(columns.known("EUR", DEFINITIONS))
    faults = Faults()
    columns.chosen(["email", "nothing", "email"], "EUR", {}, faults)
    assert [(fault.field, fault.reason) for fault in faults.found] == [
        ("columns[1]", "UNKNOWN_COLUMN"),
        ("columns[2]", "DUPLICATE"),
    ]


@pytest.mark.parametrize(("index", "name"), [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA")])
def test_columns_of_sheets_have_letters(index: int, name: str) -> None:
    assert letters_of(index) == name


@pytest.mark.parametrize(
    ("minor", "digits", "text"), [(5, 2, "0.05"), (-5, 2, "-0.05"), (7, 0, "7"), (1234, 3, "1.234")]
)
def test_amounts_are_decimal(minor: int, digits: int, text: str) -> None:
    assert decimal(minor, digits) == text


@pytest.mark.parametrize("form", [pb.EXPORT_FORMAT_CSV, pb.EXPORT_FORMAT_XLSX])
def test_an_export_is_read_back_by_an_import_as_it_is(form: int) -> None:
    definitions = {name: each for name, each in DEFINITIONS.items() if name != "email"}
    faults = Faults()
    every = columns.chosen((), "EUR", definitions, faults)
    writer = writer_of(form, every, ())
    ann = person(
        first_name="Ann",
        last_name="=Lee",
        email="ann@example.com",
        phone="+4930123456",
        born_on="1985-04-23",
        gender="f",
        language="de",
        time_zone="Europe/Berlin",
        company="@Lee & Co",
        preferred_categories=["tea", "cake"],
        handles={"x": "ann", "telegram_chat_id": "-100123"},
    )
    ann = replace(
        ann,
        place={"street_lines": ["1 Main St"], "postal_code": "53111", "city": "Bonn", "country": "DE"},
    )
    file = io.BytesIO(b"".join([writer.begin(), writer.rows([ann]), writer.end()]))
    layout = reading.detect(file, file_name=f"customers.{writer.extension}")
    header, records = reading.columns(file, layout), list(reading.records(file, layout))
    mapping = guess(
        targets.CUSTOMERS, header, [record.cells for record in records], definitions, country="DE"
    )
    found = {column.name: column.target for column in mapping.columns if column.target}
    wanted = {
        target.label: target.name
        for target in targets.targets(targets.CUSTOMERS, definitions).values()
        if target.name != "address.street_line_2"  # an export has one column for the street
    }
    assert found == wanted
    facts = Facts(
        business_id=ID,
        currency="EUR",
        country="DE",
        time_zone="Europe/Berlin",
        attributes=definitions,
        now=AT,
    )
    (parsed,) = RowReader(targets.CUSTOMERS, mapping, facts).read(records)
    assert isinstance(parsed, Parsed)
    assert parsed.customer is not None
    assert parsed.customer.profile == Profile.of(ann.profile)
    standing = parsed.customer.standing
    assert (standing.status, standing.type, standing.tags) == (3, 2, ("tea", "new"))
    assert (standing.attributes, standing.personal) == ({"shoe_size": 44.5}, {"colour": "red"})
    assert [source.external_id for source in standing.sources] == ["C-1"]
