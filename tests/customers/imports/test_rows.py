"""Rows become what the RPCs would take, by the same rules; all that is wrong is told, and never the value."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs import validation
from libs.instants import stamp
from libs.problems import Faults, InvalidArgument
from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1 import orders_pb2
from regulars.type.v1.money_pb2 import Money
from services.customers.imports.mapping import Column, Mapping
from services.customers.imports.reading import BadCell, Number, Record, RecordFault
from services.customers.imports.rows import Parsed, Refused, RowReader, onto
from services.customers.imports.targets import BALANCES, CUSTOMERS, CUSTOMERS_AND_ORDERS, ORDERS
from services.customers.orders.wire import House, ToldOrder, record
from services.customers.profiles import wire
from services.customers.profiles.rules import Profile, Source
from services.customers.profiles.wire import Written
from tests.customers.imports.business import ATTRIBUTES, FACTS, NOW

TODAY = NOW.date()


def read(
    kind: int,
    names: Sequence[str],
    *rows: Sequence[str] | Record,
    constants: dict[str, str] | None = None,
    **options: Any,
) -> list[Parsed | Refused]:
    columns = tuple(Column(i, name.title(), name, **options.get(name, {})) for i, name in enumerate(names))
    taken = [row if isinstance(row, Record) else Record(i, row) for i, row in enumerate(rows, 2)]
    return list(RowReader(kind, Mapping(kind, columns, constants or {}), FACTS).read(taken))


def one(kind: int, options: dict[str, Any] | None = None, /, **cells: str) -> Parsed | Refused:
    names = {name.replace("__", "."): text for name, text in cells.items()}
    given = {name.replace("__", "."): option for name, option in (options or {}).items()}
    (found,) = read(kind, list(names), list(names.values()), **given)
    return found


def customer(options: dict[str, Any] | None = None, /, **cells: str) -> Written:
    found = one(CUSTOMERS, options, **({"customer__email": "a@example.com"} | cells))
    assert isinstance(found, Parsed), found
    assert found.customer
    return found.customer


def reasons(found: Parsed | Refused) -> list[tuple[int, str, str]]:
    assert isinstance(found, Refused), found
    return [(error.column, error.field, error.reason) for error in found.errors]


def order(options: dict[str, Any] | None = None, /, **cells: str) -> ToldOrder:
    base = {
        "order__external_id": "1",
        "order__placed_at": "2026-03-14",
        "order__customer__email": "a@example.com",
    }
    found = one(ORDERS, options, **(base | cells))
    assert isinstance(found, Parsed), found
    assert found.order
    return found.order


# --- the same rules as the RPCs ---

LINES = st.text(max_size=8) | st.sampled_from(
    ["Ann", "Ñandú", "x" * 101, "x" * 201, "a\x00b", " Lee ", "U\u0308", "two\nlines"]
)
CELLS = {
    "email": st.sampled_from(
        ["a@example.com", "A.B+c@Exämple.de", "bad", "a@b", "x" * 250 + "@example.com", "ü@example.com"]
    ),
    "phone": st.sampled_from(
        ["+493012345678", "030 12345678", "0049 30 12345678", "123", "+1", "(415) 555-2671", "x"]
    ),
    "born_on": st.sampled_from(["1985-04-23", "1899-12-31", "2026-11-21", "2026-11-22", "1985-02-30"]),
    "language": st.sampled_from(["en", "pt-br", "zh-hant-tw", "e", "x1", "english-like"]),
    "time_zone": st.sampled_from(["Europe/Berlin", "Mars/Base", "UTC"]),
    "first_name": LINES,
    "last_name": LINES,
    "gender": LINES,
    "company": LINES,
}


@settings(max_examples=500, deadline=None)
@given(st.fixed_dictionaries({}, optional=CELLS))
def test_a_row_is_taken_exactly_if_create_customer_takes_it(cells: dict[str, str]) -> None:
    cells = {
        name: text
        for name, text in cells.items()
        if text.strip(" '") == text.strip() and text.strip() and text.isprintable() | ("\x00" in text)
    }
    if not cells.get("email") and not cells.get("phone"):
        cells["email"] = "a@example.com"
    message = pb.Customer(**{name: text.strip() for name, text in cells.items()})  # type: ignore[arg-type]
    faults = Faults()
    expected = None
    try:
        validation.check(message)
        paths = wire.present_paths(message)
        expected = wire.written(
            message, paths, wire.EMPTY, country=FACTS.country, today=TODAY, definitions={}, faults=faults
        )
        faults.refuse()
    except InvalidArgument as problem:
        expected = None
        wrong = {each.field.removeprefix("customer.") for each in problem.violations}
    found = one(CUSTOMERS, **{f"customer__{name}": text for name, text in cells.items()})
    if expected is None:
        assert wrong <= {error.field.removeprefix("customer.") for error in found.errors}  # type: ignore[union-attr]
    else:
        assert isinstance(found, Parsed), found
        assert found.customer == expected


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 10**6) | st.none(),
    st.integers(0, 10**5) | st.none(),
    st.integers(0, 10**4) | st.none(),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**4), st.integers(0, 200)), max_size=3),
    st.sampled_from(["a@example.com", "bad"]),
    st.sampled_from(["", "030 12345678", "12"]),
)
def test_an_order_is_what_record_order_makes_of_it(
    total: int | None,
    shipping: int | None,
    discount: int | None,
    items: list[tuple[int, int, int]],
    email: str,
    phone: str,
) -> None:
    message = orders_pb2.Order(
        source="csv",
        external_id="1",
        status=orders_pb2.ORDER_STATUS_PAID,
        placed_at=stamp(datetime(2026, 3, 13, 23, tzinfo=UTC)),
        customer=orders_pb2.OrderCustomer(email=email, phone=phone),
        items=[
            orders_pb2.OrderItem(
                quantity=n, unit_price=Money(amount_minor=price), sku="A", discount=money(less or None)
            )
            for n, price, less in items
        ],
        total=money(total),
        shipping=money(shipping),
        discount=money(discount),
    )
    expected = None
    try:
        house = House(FACTS.business_id, "EUR", "DE", NOW, FACTS.content_key)
        expected = record(orders_pb2.OrderRecord(order=message), house)
    except InvalidArgument:
        pass
    names = ["order.external_id", "order.placed_at", "order.customer.email", "order.customer.phone"]
    names += ["order.total", "order.shipping", "order.discount"]
    head = ["1", "2026-03-14", email, phone, *(cents(each) for each in (total, shipping, discount))]
    lines = [[*head, "A", str(n), cents(price), cents(less or None)] for n, price, less in items]
    names += ["item.sku", "item.quantity", "item.unit_price", "item.discount"]
    (found,) = read(
        ORDERS, names, *(lines or [[*head, "", "", "", ""]]), **{n: {"decimal": "."} for n in names}
    )
    if expected is None:
        assert isinstance(found, Refused)
    else:
        assert isinstance(found, Parsed), found
        assert found.order == expected


def money(minor: int | None) -> Money | None:
    return None if minor is None else Money(amount_minor=minor)


def cents(minor: int | None) -> str:
    return "" if minor is None else f"{minor // 100}.{minor % 100:02}"


# --- customers ---


def test_everything_wrong_with_a_row_is_told_and_no_value() -> None:
    found = one(
        CUSTOMERS,
        customer__email="not an email",
        customer__phone="12",
        customer__born_on="2085-01-01",
        customer__tags="x" * 65,
        customer__status="golden",
        customer__first_name="n" * 101,
        attribute__size="large",
    )
    assert reasons(found) == [
        (1, "customer.email", "FORMAT_EMAIL"),
        (2, "customer.phone", "FORMAT_PHONE"),
        (3, "customer.born_on", "FORMAT_BIRTH_DATE"),
        (4, "customer.tags", "STRING_MAX_LEN"),
        (5, "customer.status", "STATUS"),
        (6, "customer.first_name", "STRING_MAX_LEN"),
        (7, "customer.attributes.size", "NUMBER"),
    ]
    assert isinstance(found, Refused)
    text = repr(found)
    for value in ("not an email", "2085", "xxxx", "golden", "nnnn", "large"):
        assert value not in text
    assert all(error.row == 2 and error.name and error.expected for error in found.errors)


def test_nobody_to_be_found_is_told_once() -> None:
    names = ["customer.first_name", "customer.email"]
    assert [reasons(each) for each in read(CUSTOMERS, names, ["Ann", ""], ["Ann", "bad"])] == [
        [(2, "customer.email", "REQUIRED")],
        [(2, "customer.email", "FORMAT_EMAIL")],
    ]
    guest = one(CUSTOMERS, customer__first_name="Ann", customer__type="guest")
    assert isinstance(guest, Parsed)


@pytest.mark.parametrize(
    ("whole", "first", "last", "full"),
    [
        ("Ann Lee", "Ann", "Lee", ""),
        ("Lee, Ann Mary", "Ann Mary", "Lee", ""),
        ("Ann Mary Lee", "", "", "Ann Mary Lee"),
        ("Madonna", "", "", "Madonna"),
        ("山田 太郎", "", "", "山田 太郎"),
    ],
)
def test_full_names_are_split_where_that_is_safe(whole: str, first: str, last: str, full: str) -> None:
    profile = customer(customer__full_name=whole).profile
    assert (profile.first_name, profile.last_name, profile.full_name) == (first, last, full)


def test_a_full_name_beside_its_parts_is_not_split() -> None:
    profile = customer(customer__full_name="Dr. Ann Lee", customer__first_name="Ann").profile
    assert (profile.first_name, profile.last_name, profile.full_name) == ("Ann", "", "Dr. Ann Lee")


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("1985-04-23", "", "1985-04-23"),
        ("23.04.1985", "DMY", "1985-04-23"),
        ("4/23/1985", "MDY", "1985-04-23"),
        ("04/05/85", "DMY", "1985-05-04"),
        ("04/05/85", "MDY", "1985-04-05"),
        ("1985/4/23", "", "1985-04-23"),
        ("1985年4月23日", "", "1985-04-23"),
        ("19850423", "", "1985-04-23"),
        ("23 April 1985", "", "1985-04-23"),
        ("Apr 23, 1985", "", "1985-04-23"),
        ("23. März 1985", "", "1985-03-23"),
        ("1985-04-23T00:00:00", "", "1985-04-23"),
        ("23.04.1985 00:00", "DMY", "1985-04-23"),
        ("01.01.26", "DMY", "2026-01-01"),
        ("01.01.27", "DMY", "1927-01-01"),
    ],
)
def test_dates_in_many_shapes(text: str, order: str, expected: str) -> None:
    assert (
        customer({"customer__born_on": {"date_order": order}}, customer__born_on=text).profile.born_on
        == expected
    )


@pytest.mark.parametrize("text", ["04/05/1985", "31.02.1985", "1985-13-01", "soon", "1985", "23.04.19855"])
def test_dates_that_are_none_or_could_be_two_are_refused(text: str) -> None:
    found = one(CUSTOMERS, customer__email="a@example.com", customer__born_on=text)
    assert reasons(found) == [(2, "customer.born_on", "DATE")]


def test_attributes_are_read_by_their_kind() -> None:
    standing = customer(
        {"attribute__size": {"decimal": ","}},
        attribute__size="1.234,5",
        attribute__hobby=" tea ",
        attribute__member="Ja",
        attribute__since="2024-01-31",
        attribute__roast="dark",
    ).standing
    assert standing.attributes == {"size": 1234.5, "roast": "Dark"}
    assert standing.personal == {"hobby": "tea", "member": True, "since": "2024-01-31"}
    wrong = one(CUSTOMERS, customer__email="a@x.de", attribute__roast="blue", attribute__member="maybe")
    assert reasons(wrong) == [
        (2, "customer.attributes.roast", "ATTRIBUTE"),
        (3, "customer.attributes.member", "BOOLEAN"),
    ]


def test_words_tags_and_phones() -> None:
    found = customer(
        customer__phone="030 1234567",
        customer__tags="VIP; tea,vip | new",
        customer__status="gesperrt",
        customer__type="Wholesale",
        customer__language="Deutsch",
        customer__external_id="C1",
        customer__email_verified="oui",
        customer__handles__instagram="@ann",
    )
    assert found.profile.phone == "+49301234567"
    assert found.profile.language == "de"
    assert found.profile.handles == {"instagram": "ann"}
    assert found.standing.tags == ("VIP", "tea", "new")
    assert (found.standing.status, found.standing.type) == (4, 3)
    assert found.standing.sources == (Source("csv", "C1"),)
    assert found.email_verified
    assert found.paths >= {"email", "phone", "tags", "sources", "handles.instagram", "email_verified"}


def test_bad_cells_count_only_where_they_have_a_target() -> None:
    bad = BadCell("CELL_FORMULA", "must be a value")
    names = ["customer.email", "customer.first_name", ""]
    first, second = read(CUSTOMERS, names, ["a@example.com", "Ann", bad], ["b@example.com", bad, "x"])
    assert isinstance(first, Parsed)
    assert reasons(second) == [(2, "customer.first_name", "CELL_FORMULA")]


def test_a_row_that_could_not_be_read_is_refused() -> None:
    (found,) = read(
        CUSTOMERS, ["customer.email"], Record(7, ["x"], RecordFault("ROW_QUOTES", "close the quote"))
    )
    assert isinstance(found, Refused)
    assert (found.row, found.last_row, found.errors[0].reason) == (7, 7, "ROW_QUOTES")


def test_writing_over_a_customer_changes_what_the_row_holds() -> None:
    before = customer(
        customer__email="a@example.com",
        customer__first_name="Ann",
        customer__phone="030 1234567",
        customer__phone_verified="yes",
        customer__tags="old",
        attribute__size="1",
        customer__handles__x="ann",
    )
    after = onto(
        before, customer(customer__email="b@example.com", customer__tags="new", attribute__hobby="tea")
    )
    assert after.profile == replace(before.profile, email="b@example.com")
    assert after.standing.tags == ("old", "new")
    assert {**after.standing.attributes, **after.standing.personal} == {"size": 1, "hobby": "tea"}
    assert (after.email_verified, after.phone_verified) == (False, True)
    assert onto(wire.EMPTY, before).profile == before.profile
    assert isinstance(after.profile, Profile)


def test_constants_fill_in_for_columns() -> None:
    (found,) = read(CUSTOMERS, ["customer.email"], ["a@example.com"], constants={"customer.tags": "spring"})
    assert isinstance(found, Parsed)
    assert found.customer
    assert found.customer.standing.tags == ("spring",)
    with pytest.raises(InvalidArgument):
        read(CUSTOMERS, ["customer.email"], ["a@example.com"], constants={"customer.status": "golden"})


# --- orders ---


@pytest.mark.parametrize(
    ("text", "decimal", "minor"),
    [
        ("24.90", ".", 2490),
        ("24,90", ",", 2490),
        ("1.234,50", ",", 123450),
        ("1,234.50", ".", 123450),
        ("1'234.50", ".", 123450),
        ("1 234,50 €", ",", 123450),
        ("€ 5", "", 500),
        ("EUR 5.5", "", 550),
        ("1.234,50", "", 123450),
        ("12", ",", 1200),
        (Number("1.5"), ",", 150),
        (Number("1234"), "", 123400),
        ("0", "", 0),
    ],
)
def test_amounts_in_many_shapes(text: str, decimal: str, minor: int) -> None:
    assert order({"order__total": {"decimal": decimal}}, order__total=text).told.total_minor == minor


@pytest.mark.parametrize(
    ("text", "decimal", "reason"),
    [
        ("$5", "", "CURRENCY_MISMATCH"),
        ("5 USD", "", "CURRENCY_MISMATCH"),
        ("-5", "", "NEGATIVE"),
        ("(5.00)", ".", "NEGATIVE"),
        ("1.234", "", "AMOUNT_AMBIGUOUS"),
        ("12.345", ".", "AMOUNT_DECIMALS"),
        ("1,23,456.00", ".", "AMOUNT"),
        ("five", "", "AMOUNT"),
        ("9" * 30, "", "SUM_RANGE"),
        ("99999999999999.99", ".", "SUM_RANGE"),
    ],
)
def test_amounts_that_are_none_are_refused(text: str, decimal: str, reason: str) -> None:
    found = one(
        ORDERS,
        {"order__total": {"decimal": decimal}},
        order__external_id="1",
        order__placed_at="2026-03-14",
        order__customer__email="a@example.com",
        order__total=text,
    )
    assert reasons(found)[0][2] == reason


@pytest.mark.parametrize(
    ("text", "order_of_date", "expected"),
    [
        ("2026-03-14", "", "2026-03-13T23:00:00"),
        ("2026-03-14 15:09:26", "", "2026-03-14T14:09:26"),
        ("2026-07-14T15:09:26", "", "2026-07-14T13:09:26"),
        ("2026-03-14T15:09:26Z", "", "2026-03-14T15:09:26"),
        ("2026-03-14 15:09:26 -0500", "", "2026-03-14T20:09:26"),
        ("2026-03-14 15:09:26 UTC", "", "2026-03-14T15:09:26"),
        ("14.03.2026 15:09", "DMY", "2026-03-14T14:09:00"),
        ("3/14/2026 3:09 PM", "MDY", "2026-03-14T14:09:00"),
        ("Mar 14, 2026 3:09:26 pm", "", "2026-03-14T14:09:26"),
        ("1773500966", "", "2026-03-14T15:09:26"),
    ],
)
def test_instants_are_in_the_zone_of_the_business(text: str, order_of_date: str, expected: str) -> None:
    told = order(
        {"order__placed_at": {"date_order": order_of_date}}, order__placed_at=text, order__total="1"
    ).told
    assert told.placed_at == datetime.fromisoformat(expected).replace(tzinfo=UTC)


ITEMS = ["order.external_id", "order.placed_at", "order.customer.email", "order.total"]
ITEMS += ["item.sku", "item.quantity", "item.unit_price"]


def test_rows_of_one_order_are_its_items() -> None:
    found = read(
        ORDERS,
        ITEMS,
        ["1", "2026-03-14", "a@example.com", "25.00", "A", "2", "10.00"],
        ["1", "", "", "", "B", "1", "5.00"],
        ["2", "2026-03-14", "a@example.com", "", "B", "", "5.00"],
        ["1", "2026-03-14", "a@example.com", "", "C", "1", "1.00"],
    )
    assert [(each.row, each.last_row) for each in found] == [(2, 3), (4, 4), (5, 5)]
    first = found[0]
    assert isinstance(first, Parsed)
    assert first.order
    assert [(item["sku"], item["amount_minor"]) for item in first.order.told.items] == [
        ("A", 2000),
        ("B", 500),
    ]
    assert first.order.told.quantity == 3


def test_the_only_item_of_an_order_costs_what_the_order_does() -> None:
    columns = [*ITEMS[:4], "order.shipping", "item.name", "item.quantity"]
    found = read(
        ORDERS,
        columns,
        ["1", "2026-03-14", "a@example.com", "25.00", "5.00", "Tea", "3"],
        ["2", "2026-03-14", "a@example.com", "a lot", "", "Tea", "1"],
        ["3", "2026-03-14", "a@example.com", "25.00", "", "Tea", "1"],
        ["3", "2026-03-14", "a@example.com", "25.00", "", "Cup", "1"],
    )
    assert isinstance(found[0], Parsed)
    assert found[0].order
    assert [(item["quantity"], item["amount_minor"]) for item in found[0].order.told.items] == [(3, 2000)]
    wrong = [each for each in found[1:] if isinstance(each, Refused)]
    assert [(error.row, error.reason) for each in wrong for error in each.errors] == [
        (3, "AMOUNT"),
        (4, "REQUIRED"),
        (5, "REQUIRED"),
    ]


def test_one_wrong_row_refuses_the_whole_order_and_no_other() -> None:
    found = read(
        ORDERS,
        ITEMS,
        ["1", "2026-03-14", "a@example.com", "", "A", "2", "10.00"],
        ["1", "", "b@example.com", "", "B", "none", "5.00"],
        Record(4, ["?"], RecordFault("ROW_QUOTES", "close the quote")),
        ["1", "", "", "", "B", "1", "5.00"],
        Record(6, ["?"], RecordFault("ROW_QUOTES", "close the quote")),
        ["2", "2026-03-14", "a@example.com", "", "B", "", "5.00"],
    )
    assert [(type(each), each.row, each.last_row) for each in found] == [
        (Refused, 2, 5),
        (Refused, 6, 6),
        (Parsed, 7, 7),
    ]
    refused = found[0]
    assert isinstance(refused, Refused)
    assert [(error.row, error.reason) for error in refused.errors] == [
        (2, "ORDER_REFUSED"),
        (3, "ROW_DIFFERS"),
        (3, "NUMBER"),
        (4, "ROW_QUOTES"),
        (5, "ORDER_REFUSED"),
    ]


def test_sums_that_do_not_add_up_are_told_at_their_column() -> None:
    found = read(ORDERS, ITEMS, ["1", "2026-03-14", "a@example.com", "26.00", "A", "2", "10.00"])
    assert reasons(found[0]) == [(4, "order.total", "SUM_MISMATCH")]


def test_more_rows_than_an_order_may_have_are_refused_as_one() -> None:
    rows = [["1", "2026-03-14", "a@example.com", "", "A", "1", "1.00"]] * 600
    (found,) = read(ORDERS, ITEMS, *rows)
    assert isinstance(found, Refused)
    assert (found.row, found.last_row, found.errors[0].reason) == (2, 601, "REPEATED_MAX_ITEMS")


def test_line_totals_stand_for_prices() -> None:
    told = order(item__sku="A", item__quantity="3", item__total="10.00").told
    assert [(i["unit_price_minor"], i["discount_minor"], i["amount_minor"]) for i in told.items] == [
        (334, 2, 1000)
    ]


def test_what_an_order_needs_is_told() -> None:
    found = one(
        ORDERS, order__external_id="", order__placed_at="", order__customer__email="", order__total=""
    )
    assert reasons(found) == [
        (1, "order.external_id", "REQUIRED"),
        (2, "order.placed_at", "REQUIRED"),
        (3, "order.customer.email", "REQUIRED"),
        (4, "order.total", "REQUIRED"),
    ]
    late = one(
        ORDERS,
        order__external_id="1",
        order__placed_at="2026-12-01",
        order__customer__email="a@example.com",
        order__total="1",
        order__currency="USD",
        order__customer__phone="12",
    )
    assert sorted(reasons(late)) == [
        (2, "order.placed_at", "TIME_RANGE"),
        (5, "order.currency", "CURRENCY_MISMATCH"),
        (6, "order.customer.phone", "FORMAT_PHONE"),
    ]


def test_the_content_tells_whether_an_order_is_another() -> None:
    same, again, other = (order(order__total=total).told for total in ("5", "5", "6"))
    assert same.content == again.content != other.content
    assert same.revision == 1
    found = one(
        ORDERS,
        order__external_id="1",
        order__placed_at="2026-03-14",
        order__customer__email="a@example.com",
        order__total="5",
        order__revision="2026-03-14T15:09:26.5Z",
    )
    assert isinstance(found, Parsed)
    assert found.order
    assert (found.revised, found.order.told.revision) == (True, 1773500966500)


def test_tax_is_inside_where_the_sums_say_so() -> None:
    cells = {"item__sku": "A", "item__unit_price": "11.90", "order__tax": "1.90"}
    assert order(**cells, order__total="11.90").told.tax_included
    assert not order(**cells, order__total="13.80").told.tax_included


def test_one_file_of_customers_and_orders() -> None:
    names = [
        "customer.email",
        "customer.first_name",
        "order.external_id",
        "order.placed_at",
        "item.unit_price",
    ]
    found = read(
        CUSTOMERS_AND_ORDERS,
        names,
        ["a@example.com", "Ann", "1", "2026-03-14", "5"],
        ["", "", "1", "", "6"],
        ["bad", "Bob", "2", "2026-03-14", "x"],
    )
    first, second = found
    assert isinstance(first, Parsed)
    assert first.customer
    assert first.order
    assert first.customer.profile.first_name == "Ann"
    assert first.order.buyer.identifiers == (("email", "a@example.com"),)
    assert first.order.told.total_minor == 1100
    assert reasons(second) == [
        (1, "customer.email", "FORMAT_EMAIL"),
        (5, "order.items[].unit_price", "AMOUNT"),
    ]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([CUSTOMERS, ORDERS, CUSTOMERS_AND_ORDERS]), st.data())
def test_any_cells_are_taken_or_refused(kind: int, data: st.DataObject) -> None:
    from services.customers.imports.targets import targets

    names = list(targets(kind, ATTRIBUTES))
    usual = [
        "",
        "1",
        "2026-01-01",
        "a@example.com",
        "yes",
        "1.234,56",
        "1e5",
        "９９",
        "²",
        "-",
        "∞",
        "NaN",
        "10/10/2026 25:61",
    ]
    cell = st.sampled_from(usual) | st.text(max_size=12)
    rows = data.draw(
        st.lists(st.lists(cell, min_size=len(names), max_size=len(names)), min_size=1, max_size=2)
    )
    order_of_date = data.draw(st.sampled_from(["", "YMD", "DMY", "MDY"]))
    decimal = data.draw(st.sampled_from(["", ".", ","]))
    options = {name: {"date_order": order_of_date, "decimal": decimal} for name in names}
    found = read(kind, names, *rows, **options)
    assert found[-1].last_row == len(rows) + 1


def test_points_lapse_at_the_end_of_the_day_that_the_file_names() -> None:
    named = {"balance.points": {"decimal": ","}, "balance.expires_at": {"date_order": "DMY"}}
    header = ["customer.email", "balance.points", "balance.expires_at", "balance.earned_at"]
    first, second, *wrong = read(
        BALANCES,
        header,
        ["a@x.de", "1.250", "31.12.2030", "2024-01-05"],
        ["a@x.de", "5", "2030-12-31T18:00:00Z", ""],
        ["", "5", "", ""],
        ["a@x.de", "0", "2001-01-01", "2999-01-01"],
        **named,
    )
    assert isinstance(first, Parsed)
    assert isinstance(second, Parsed)
    assert first.brought
    assert second.brought
    assert (first.brought.points, first.brought.email) == (1250, "a@x.de")
    zone = ZoneInfo(FACTS.time_zone)
    assert first.brought.expires_at == datetime(2031, 1, 1, tzinfo=zone)
    assert second.brought.expires_at == datetime(2030, 12, 31, 18, tzinfo=UTC)
    assert [reasons(each) for each in wrong] == [
        [(1, "customer.email", "REQUIRED")],
        [
            (3, "balance.expires_at", "ALREADY_EXPIRED"),
            (2, "balance.points", "INT64_RANGE"),
            (4, "balance.earned_at", "TIME_RANGE"),
        ],
    ]
