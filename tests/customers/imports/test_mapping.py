"""Columns are guessed by names in many languages, by known exports and by values; what is unclear stays out."""

import csv
import io

import pytest

from libs.problems import InvalidArgument
from services.customers.businesses.rules import NUMBER, TEXT, AttributeDefinition
from services.customers.imports import targets
from services.customers.imports.mapping import Column, Mapping, guess
from services.customers.imports.reading import columns, detect, records
from services.customers.imports.rows import Parsed, RowReader
from services.customers.imports.targets import BALANCES, CUSTOMERS, CUSTOMERS_AND_ORDERS, KINDS, ORDERS
from services.customers.imports.template import CSV, XLSX, template
from tests.customers.imports.business import FACTS

ATTRIBUTES = {
    "size": AttributeDefinition("size", NUMBER),
    "hobby": AttributeDefinition("hobby", TEXT),
    "old": AttributeDefinition("old", TEXT, archived=True),
}


def targets_of(kind: int, names: list[str], *samples: list[str], country: str = "DE") -> dict[str, str]:
    found = guess(kind, names, samples, ATTRIBUTES, country=country)
    return {column.name: column.target for column in found.columns}


PEOPLE = ["customer.first_name", "customer.last_name", "customer.email", "customer.phone", "customer.born_on"]


@pytest.mark.parametrize(
    "names",
    [
        ["First name", "Last name", "E-mail address", "Mobile phone", "Date of birth"],
        ["Vorname", "Nachname", "E-Mail-Adresse", "Telefonnummer", "Geburtsdatum"],
        ["Prénom", "Nom de famille", "Adresse e-mail", "Téléphone", "Date de naissance"],
        ["Nombre", "Apellidos", "Correo electrónico", "Teléfono", "Fecha de nacimiento"],
        ["Nome di battesimo", "Cognome", "Indirizzo email", "Cellulare", "Data di nascita"],
        ["Voornaam", "Achternaam", "E-mailadres", "Telefoonnummer", "Geboortedatum"],
        ["Förnamn", "Efternamn", "E-postadress", "Mobilnummer", "Födelsedatum"],
        ["Fornavn", "Efternavn", "E-mailadresse", "Telefonnummer", "Fødselsdato"],
        ["Primeiro nome", "Sobrenome", "Endereço de e-mail", "Celular", "Data de nascimento"],
        ["Imię", "Nazwisko", "Adres e-mail", "Numer telefonu", "Data urodzenia"],
        ["Имя", "Фамилия", "Электронная почта", "Номер телефона", "Дата рождения"],
        ["Όνομα", "Επώνυμο", "Ηλεκτρονικό ταχυδρομείο", "Τηλέφωνο", "Ημερομηνία γέννησης"],
        ["名", "姓", "メールアドレス", "電話番号", "生年月日"],
        ["firstName", "last_name", "EMAIL", "phone-number", "birthDate"],
        ["customer.first_name", "customer.last_name", "customer.email", "customer.phone", "customer.born_on"],
    ],
    ids=["en", "de", "fr", "es", "it", "nl", "sv", "da", "pt", "pl", "ru", "el", "ja", "code", "own"],
)
def test_names_in_many_languages_are_known(names: list[str]) -> None:
    assert list(targets_of(CUSTOMERS, names).values()) == PEOPLE


@pytest.mark.parametrize(
    "names",
    [
        ["Order number", "Order date", "Grand total", "SKU", "Quantity", "Unit price"],
        ["Bestellnummer", "Bestelldatum", "Gesamtsumme", "Artikelnummer", "Menge", "Einzelpreis"],
        ["Numéro de commande", "Date de commande", "Montant total", "Référence", "Quantité", "Prix unitaire"],
        ["Número de pedido", "Fecha de pedido", "Importe total", "Referencia", "Cantidad", "Precio unitario"],
        ["Numero ordine", "Data ordine", "Totale", "Codice articolo", "Quantità", "Prezzo unitario"],
        ["Bestelnummer", "Besteldatum", "Totaalbedrag", "Artikelcode", "Aantal", "Stukprijs"],
        ["Beställningsnummer", "Beställningsdatum", "Totalsumma", "Artikelnr", "Antal", "Styckpris"],
        ["Ordrenummer", "Ordredato", "Samlet beløb", "Varenummer", "Antal", "Stykpris"],
        [
            "Número do pedido",
            "Data do pedido",
            "Valor total",
            "Código do produto",
            "Quantidade",
            "Preço unitário",
        ],
        ["Numer zamówienia", "Data zamówienia", "Razem", "Kod produktu", "Ilość", "Cena jednostkowa"],
        ["Номер заказа", "Дата заказа", "Итого", "Артикул", "Количество", "Цена"],
        ["Αριθμός παραγγελίας", "Ημερομηνία παραγγελίας", "Σύνολο", "Κωδικός προϊόντος", "Ποσότητα", "Τιμή"],
        ["注文番号", "注文日", "合計金額", "商品コード", "数量", "単価"],
    ],
)
def test_names_of_orders_in_many_languages_are_known(names: list[str]) -> None:
    expected = [
        "order.external_id",
        "order.placed_at",
        "order.total",
        "item.sku",
        "item.quantity",
        "item.unit_price",
    ]
    assert list(targets_of(ORDERS, names).values()) == expected


def test_the_exports_of_shops_are_known() -> None:
    shopify = [
        "Name",
        "Email",
        "Financial Status",
        "Subtotal",
        "Total",
        "Created at",
        "Lineitem name",
        "Lineitem price",
    ]
    found = guess(ORDERS, shopify, [], {})
    assert [column.target for column in found.columns] == [
        *("order.external_id", "order.customer.email", "order.status", ""),
        *("order.total", "order.placed_at", "item.name", "item.unit_price"),
    ]
    assert "Shopify" in found.columns[0].why
    assert targets_of(
        CUSTOMERS, ["First Name", "Last Name", "Email", "Total Spent", "Total Orders", "Tags"]
    ) == {
        "First Name": "customer.first_name",
        "Last Name": "customer.last_name",
        "Email": "customer.email",
        "Total Spent": "",
        "Total Orders": "",
        "Tags": "customer.tags",
    }
    klaviyo = targets_of(CUSTOMERS, ["Email", "Klaviyo ID", "Organization", "Phone Number"])
    assert list(klaviyo.values()) == [
        "customer.email",
        "customer.external_id",
        "customer.company",
        "customer.phone",
    ]
    mailchimp = targets_of(
        CUSTOMERS, ["Email Address", "First Name", "MEMBER_RATING", "LEID", "EUID", "Birthday"]
    )
    assert mailchimp["EUID"] == "customer.external_id"
    assert mailchimp["Birthday"] == ""
    square = targets_of(CUSTOMERS, ["Reference ID", "Email Address", "Square Customer ID", "Birthday"])
    assert square == {
        "Reference ID": "",
        "Email Address": "customer.email",
        "Square Customer ID": "customer.external_id",
        "Birthday": "customer.born_on",
    }
    woo = targets_of(
        ORDERS, ["order_id", "order_date", "status", "billing_email", "order_total", "order_currency"]
    )
    assert list(woo.values()) == [
        *("order.external_id", "order.placed_at", "order.status"),
        *("order.customer.email", "order.total", "order.currency"),
    ]


def test_mistyped_names_are_known_with_less_confidence() -> None:
    found = guess(CUSTOMERS, ["E-mail adress", "Phone numbr", "xyzzy"], [], {})
    assert [column.target for column in found.columns] == ["customer.email", "customer.phone", ""]
    assert found.columns[0].confidence < guess(CUSTOMERS, ["Email"], [], {}).columns[0].confidence


def test_values_tell_where_names_do_not() -> None:
    samples = [["Ann", "a@example.com", "+493012345678"], ["Bob", "b@example.com", "030 87654321"]]
    assert targets_of(CUSTOMERS, ["c1", "c2", "c3"], *samples) == {
        "c1": "",
        "c2": "customer.email",
        "c3": "customer.phone",
    }
    orders = [["1", "2024-03-01", "a@example.com", "12.50"], ["2", "2024-03-02", "b@example.com", "7.00"]]
    assert list(targets_of(ORDERS, ["Order ID", "c2", "c3", "c4"], *orders).values()) == [
        *("order.external_id", "order.placed_at", "order.customer.email", "order.total"),
    ]


def test_what_is_ambiguous_or_contradicted_stays_without_a_target() -> None:
    two = guess(CUSTOMERS, ["Contact email", "Billing email"], [["a@x.de", "b@x.de"]], {})
    assert [column.target for column in two.columns] == ["", ""]
    assert two.columns[0].why
    wrong = guess(CUSTOMERS, ["Email", "Name"], [["yes", "Ann"], ["no", "Bob"]], {})
    assert [column.target for column in wrong.columns] == ["", "customer.full_name"]
    unclear = guess(CUSTOMERS, ["c1", "c2"], [["a@x.de", "b@x.de"]], {})
    assert [column.target for column in unclear.columns] == ["", ""]


@pytest.mark.parametrize(
    ("dates", "country", "order", "sure"),
    [
        (["01/02/1985", "13/02/1985"], "US", "DMY", True),
        (["01/02/1985", "02/13/1985"], "DE", "MDY", True),
        (["01/02/1985"], "US", "MDY", False),
        (["01/02/1985"], "GB", "DMY", False),
        (["01.02.1985"], "US", "DMY", True),
        (["1985-02-01"], "US", "YMD", True),
    ],
)
def test_day_or_month_first_is_decided_for_the_column(
    dates: list[str], country: str, order: str, sure: bool
) -> None:
    found = guess(CUSTOMERS, ["Birthday"], [[each] for each in dates], {}, country=country).columns[0]
    assert (found.date_order, found.confidence > 0.6) == (order, sure)


def test_what_stands_before_decimals_is_decided_for_the_column() -> None:
    samples = [["1", "1.234,50", "12.5", "7"], ["2", "3,00", "1,000.00", "1000"]]
    found = guess(ORDERS, ["Order ID", "Total", "Shipping", "Tax"], samples, {})
    assert [column.decimal for column in found.columns] == ["", ",", ".", ""]


def test_attributes_of_the_business_are_targets() -> None:
    assert targets_of(CUSTOMERS, ["Email", "Size", "hobby", "old"]) == {
        "Email": "customer.email",
        "Size": "attribute.size",
        "hobby": "attribute.hobby",
        "old": "",
    }


def test_everything_wrong_with_a_mapping_is_told_at_once() -> None:
    wrong = Mapping(
        ORDERS,
        (
            Column(0, "a", "order.total"),
            Column(0, "b", "order.total"),
            Column(9, "c", "customer.email", date_order="XXX", decimal="?"),
        ),
        {"order.color": "red", "order.total": "1"},
    )
    with pytest.raises(InvalidArgument) as refused:
        wrong.check({}, 3)
    assert sorted((each.field, each.reason) for each in refused.value.violations) == [
        ("mapping.columns", "REQUIRED"),
        ("mapping.columns", "REQUIRED"),
        ("mapping.columns", "REQUIRED"),
        ("mapping.columns[1].index", "DUPLICATE"),
        ("mapping.columns[1].target", "DUPLICATE"),
        ("mapping.columns[2].date_order", "INVALID"),
        ("mapping.columns[2].decimal", "INVALID"),
        ("mapping.columns[2].index", "NO_SUCH_COLUMN"),
        ("mapping.columns[2].target", "UNKNOWN_TARGET"),
        ("mapping.constants.order.color", "UNKNOWN_TARGET"),
        ("mapping.constants.order.total", "DUPLICATE"),
    ]


def test_a_mapping_is_stored_and_read_again() -> None:
    found = guess(CUSTOMERS, ["Email", "Geburtsdatum"], [["a@x.de", "01.02.1985"]], {})
    assert Mapping.of(found.to_json()) == found


@pytest.mark.parametrize("form", [CSV, XLSX])
@pytest.mark.parametrize("kind", KINDS)
def test_templates_are_mapped_fully_and_their_examples_are_taken(kind: int, form: str) -> None:
    file = io.BytesIO(template(kind, form, ATTRIBUTES))
    layout = detect(file)
    names = columns(file, layout)
    rows = list(records(file, layout))
    found = guess(kind, names, [list(row.cells) for row in rows], ATTRIBUTES, country="GB")
    assert [column.target for column in found.columns] == list(targets.targets(kind, ATTRIBUTES))
    found.check(ATTRIBUTES, len(names))
    parsed = list(RowReader(kind, found, FACTS).read(rows))
    assert [each for each in parsed if not isinstance(each, Parsed)] == []
    assert len(parsed) == (2 if kind in (CUSTOMERS, BALANCES) else 1)
    assert kind != CUSTOMERS_AND_ORDERS or (parsed[0].customer and parsed[0].order)  # type: ignore[union-attr]


def test_the_template_opens_in_spreadsheets() -> None:
    raw = template(CUSTOMERS, CSV)
    assert raw.startswith(b"\xef\xbb\xbf")
    header = next(csv.reader(io.StringIO(raw.decode("utf-8-sig"))))
    assert "Email" in header


@pytest.mark.parametrize(
    "columns",
    [
        ["Customer ID", "Points balance", "Expiry date", "Tier points"],
        ["Kundennummer", "Punktestand", "Gültig bis", "Gesammelte Punkte"],
        ["Número de cliente", "Puntos", "Fecha de caducidad", "Puntos acumulados"],
        ["Numéro client", "Solde de points", "Date d'expiration", "Points cumulés"],
        ["顧客番号", "ポイント残高", "有効期限", "累計ポイント"],
        ["Номер клиента", "Баллы", "Срок действия", "Накоплено баллов"],
    ],
)
def test_points_are_known_by_their_names(columns: list[str]) -> None:
    assert list(targets_of(BALANCES, columns, ["C-1", "250", "2030-12-31", "1000"]).values()) == [
        *("customer.external_id", "balance.points", "balance.expires_at", "balance.lifetime_points"),
    ]
