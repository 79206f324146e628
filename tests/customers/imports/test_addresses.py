"""Default addresses that come with customers: guessed, judged, written, exported, imported again, taken back."""

from typing import Any

import pytest

from regulars.customers.v1 import addresses_pb2, customers_pb2
from regulars.customers.v1 import imports_pb2 as pb
from regulars.customers.v1.addresses_pb2 import Address
from regulars.customers.v1.exports_pb2 import ExportCustomersRequest
from regulars.customers.v1.exports_pb2_grpc import ExportsServiceStub
from services.customers.addresses.rules import Place
from services.customers.imports import places
from services.customers.imports.countries import country
from services.customers.imports.mapping import guess
from services.customers.imports.targets import BALANCES, CUSTOMERS, CUSTOMERS_AND_ORDERS, KINDS
from services.customers.imports.template import CSV, template
from tests.customers.imports.shop import csv_of, errors, imports, over, run, start, upload
from tests.customers.shop import Shop, open_shop
from tests.platform import TenantOfTest

HEADER = ("Customer ID", "Email", "Street", "City", "State", "Zip", "Country")
ANN = ("A", "ann@example.com", "1 Main St", "Springfield", "Illinois", "62701", "United States")
UPDATE = pb.DUPLICATE_POLICY_UPDATE
PENDING = addresses_pb2.ADDRESS_VERIFICATION_STATUS_PENDING
VERIFIED = addresses_pb2.ADDRESS_VERIFICATION_STATUS_VERIFIED


async def person(shop: Shop, email: str) -> customers_pb2.Customer:
    return await shop.customers.LookupCustomer(customers_pb2.LookupCustomerRequest(email=email))


async def homes(shop: Shop, email: str) -> list[Address]:
    wanted = addresses_pb2.ListAddressesRequest(customer_id=(await person(shop, email)).id)
    return list((await shop.addresses.ListAddresses(wanted)).addresses)


async def emails(shop: Shop, **filters: Any) -> set[str]:
    return {each.email for each in (await shop.search(**filters)).customers}


async def undo(shop: Shop, import_id: str) -> pb.Import:
    await imports(shop).UndoImport(pb.UndoImportRequest(id=import_id))
    return await over(shop, import_id)


async def exported(shop: Shop) -> bytes:
    answer = shop.calls(ExportsServiceStub).ExportCustomers(
        ExportCustomersRequest(columns=["profile", "address"])
    )
    return b"".join([part.data async for part in answer])


async def test_new_customers_get_the_address_and_are_found_by_it(shop: Shop) -> None:
    bob = ("B", "bob@example.com", "", "", "", "", "")
    eve = ("E", "eve@example.com", "Hauptstr. 5", "Köln", "", "50667", "Deutschland")
    done = await run(shop, csv_of([HEADER, ANN, bob, eve]))
    assert done.progress.customers_created == 3, await errors(shop, done.id)
    (home,) = await homes(shop, "ann@example.com")
    assert (list(home.street_lines), home.city, home.state, home.postal_code, home.country) == (
        *(["1 Main St"], "Springfield", "IL", "62701", "US"),
    )
    assert home.default
    assert home.verification.status == PENDING
    assert home.type == addresses_pb2.ADDRESS_TYPE_BOTH
    assert not await homes(shop, "bob@example.com")
    assert await emails(shop, country=["US"]) == {"ann@example.com"}
    assert await emails(shop, city="köln") == {"eve@example.com"}


async def test_a_city_and_a_country_alone_say_where_somebody_lives(shop: Shop) -> None:
    rows = csv_of(
        [
            ("Email", "City", "Country"),
            ("a@example.com", "Boston", "US"),
            ("b@example.com", "", "France"),
            ("c@example.com", "Rome", ""),
            ("d@example.com", "Nowhere", "Atlantis"),
        ]
    )
    done = await run(shop, rows)
    assert await errors(shop, done.id) == [(5, "Country", "FORMAT_COUNTRY")]
    assert await emails(shop, country=["US"], city="Boston") == {"a@example.com"}
    assert await emails(shop, country=["FR"]) == {"b@example.com"}
    assert not await homes(shop, "c@example.com")
    (home,) = await homes(shop, "a@example.com")
    assert list(home.formatted) == ["BOSTON,", "UNITED STATES"]


async def test_wrong_addresses_are_refused_with_everything_that_is_wrong(shop: Shop) -> None:
    rows = csv_of(
        [
            HEADER,
            ANN,
            ("B", "bob@", "2 Main St", "", "Bavaria", "1234", "US"),
            ("C", "c@example.com", "2 Main St", "Boston", "MA", "02101", ""),
            ("D", "d@example.com", *ANN[2:]),
        ]
    )
    done = await run(shop, rows)
    assert (done.progress.customers_created, done.progress.rows_refused) == (2, 2)
    assert set(await errors(shop, done.id)) == {
        (3, "Email", "FORMAT_EMAIL"),
        (3, "City", "REQUIRED"),
        (3, "State", "INVALID"),
        (3, "Zip", "INVALID"),
        (4, "Country", "REQUIRED"),
    }
    found = await imports(shop).ListImportErrors(pb.ListImportErrorsRequest(id=done.id))
    assert all("Bavaria" not in each.expected and "1234," not in each.expected for each in found.errors)


async def test_known_customers_move_under_update_alone_and_back_with_an_undo(shop: Shop) -> None:
    ann = await shop.create(email="ann@example.com")
    await shop.create(email="bob@example.com")
    old = Address(
        label="home",
        street_lines=["9 Elm St"],
        city="Boston",
        state="MA",
        postal_code="02101",
        country="US",
        latitude=42.0,
        longitude=-71.0,
    )
    made = await shop.addresses.CreateAddress(
        addresses_pb2.CreateAddressRequest(customer_id=ann.id, address=old)
    )
    await shop.addresses.VerifyAddress(
        addresses_pb2.VerifyAddressRequest(
            customer_id=ann.id, id=made.id, decision=VERIFIED, notes="seen there"
        )
    )
    before = await homes(shop, "ann@example.com")
    rows = csv_of([HEADER, ANN, ("B", "bob@example.com", *ANN[2:])])
    skipped = await run(shop, rows)
    assert skipped.progress.customers_skipped == 2
    assert await emails(shop, city="Springfield") == set()

    done = await run(shop, rows, duplicates=UPDATE)
    assert done.progress.customers_updated == 2
    assert await emails(shop, city="Springfield") == {"ann@example.com", "bob@example.com"}
    (home,) = await homes(shop, "ann@example.com")
    assert (home.id, home.label, home.city) == (made.id, "home", "Springfield")
    assert home.verification.status == PENDING
    assert not home.HasField("latitude")
    again = await run(shop, rows, duplicates=UPDATE)
    assert again.progress.customers_skipped == 2

    undone = await undo(shop, done.id)
    assert undone.progress.conflicts == 0, await errors(shop, done.id)
    (home,) = await homes(shop, "ann@example.com")
    for each in (home, before[0]):
        each.ClearField("etag")
        each.ClearField("updated_at")
    assert home == before[0]
    assert not await homes(shop, "bob@example.com")
    assert await emails(shop, city="Boston") == {"ann@example.com"}
    assert await emails(shop, city="Springfield") == set()


async def test_an_address_that_was_changed_since_stays(shop: Shop) -> None:
    await shop.create(email="ann@example.com")
    done = await run(shop, csv_of([HEADER, ANN, ("E", "eve@example.com", *ANN[2:])]), duplicates=UPDATE)
    for email in ("ann@example.com", "eve@example.com"):
        (home,) = await homes(shop, email)
        await shop.addresses.UpdateAddress(
            addresses_pb2.UpdateAddressRequest(
                customer_id=(await person(shop, email)).id, id=home.id, address=Address(label="work")
            )
        )
    undone = await undo(shop, done.id)
    assert undone.progress.conflicts == 2
    assert [home.label for home in await homes(shop, "ann@example.com")] == ["work"]


async def test_less_than_an_address_does_not_replace_one(shop: Shop) -> None:
    await run(shop, csv_of([HEADER, ANN]))
    rows = csv_of([("Email", "City", "Country"), ("ann@example.com", "Chicago", "US")])
    done = await run(shop, rows, duplicates=UPDATE)
    assert done.progress.customers_skipped == 1
    assert await emails(shop, city="Springfield") == {"ann@example.com"}


async def test_an_export_reads_back(shop: Shop, tenant: TenantOfTest) -> None:
    await run(shop, csv_of([HEADER, ANN]))
    ann = await person(shop, "ann@example.com")
    (home,) = await homes(shop, "ann@example.com")
    await shop.addresses.UpdateAddress(
        addresses_pb2.UpdateAddressRequest(
            customer_id=ann.id,
            id=home.id,
            address=Address(street_lines=["1 Main St", "Flat 2"], recipient="Lee"),
        )
    )
    content = await exported(shop)
    same = await run(shop, content, duplicates=UPDATE)
    assert same.progress.customers_skipped == 1, "nothing has changed"
    undone = await shop.search("ann@example.com")
    assert len(undone.customers) == 1

    other = await open_shop(tenant, name="Elsewhere", country="DE", currency="EUR")
    await shop.customers.DeleteCustomer(customers_pb2.DeleteCustomerRequest(id=ann.id))
    done = await run(other, content)
    assert done.progress.customers_created == 1, await errors(other, done.id)
    assert await exported(other) != b""
    (home,) = await homes(other, "ann@example.com")
    assert (list(home.street_lines), home.recipient, home.city, home.state, home.country) == (
        *(["1 Main St, Flat 2"], "Lee", "Springfield", "IL", "US"),
    )


async def test_somebody_new_must_be_reachable(shop: Shop) -> None:
    known = customers_pb2.Source(name="shop", external_id="K")
    await shop.create(email="kay@example.com", sources=[known])
    rows = csv_of(
        [
            ("Customer ID", "Email", "First name", "Customer type"),
            ("N", "", "Nobody", ""),
            ("K", "", "Kay", ""),
            ("G", "", "Guest", "guest"),
            ("M", "m@example.com", "Em", ""),
            ("M", "", "Emma", ""),
        ]
    )
    made = await upload(shop, rows, source="shop", duplicates=UPDATE)
    await start(shop, made.id, dry_run=True)
    dry = await over(shop, made.id)
    assert (dry.progress.customers_created, dry.progress.rows_refused) == (2, 1)
    await start(shop, made.id)
    done = await over(shop, made.id)
    assert await errors(shop, done.id) == [(2, "Email", "REQUIRED")]
    assert (done.progress.customers_created, done.progress.customers_updated) == (2, 2)
    assert (await person(shop, "kay@example.com")).first_name == "Kay"
    assert (await person(shop, "m@example.com")).first_name == "Emma"


async def test_orders_bring_guests_of_an_id_alone(shop: Shop) -> None:
    header = ("Customer ID", "City", "Country", "Order ID", "Order date", "Total")
    rows = csv_of([header, ("a", "Boston", "US", "1", "2026-01-02", "10.00")])
    done = await run(shop, rows, kind=pb.IMPORT_KIND_CUSTOMERS_AND_ORDERS, source="shop")
    assert (done.progress.customers_created, done.progress.orders_created) == (1, 1), await errors(
        shop, done.id
    )
    assert len((await shop.search(country=["US"])).customers) == 1


# --- what is guessed and read, without a server ---

STREET, SECOND, CITY, STATE, CODE, LAND = (
    f"address.{name}" for name in ("street_lines", "street_line_2", "city", "state", "postal_code", "country")
)


def targets_of(names: list[str], *samples: list[str], kind: int = CUSTOMERS, home: str = "DE") -> list[str]:
    return [column.target for column in guess(kind, names, samples, {}, country=home).columns]


@pytest.mark.parametrize(
    "names",
    [
        ["Address line 1", "City", "Region", "Postcode", "Country"],
        ["Straße und Hausnummer", "Ort", "Bundesland", "PLZ", "Land"],
        ["Rue", "Ville", "Région", "Code postal", "Pays"],
        ["Dirección", "Ciudad", "Provincia", "Código postal", "País"],
        ["Indirizzo", "Città", "Provincia", "CAP", "Paese"],
        ["Straat", "Woonplaats", "Provincie", "Postcode", "Land"],
        ["Gatuadress", "Postort", "Län", "Postnummer", "Land"],
        ["Endereço", "Cidade", "Distrito", "CEP", "País"],
        ["Ulica", "Miasto", "Województwo", "Kod pocztowy", "Kraj"],
        ["Улица", "Город", "Область", "Индекс", "Страна"],
        ["Οδός", "Πόλη", "Νομός", "ΤΚ", "Χώρα"],
        ["住所", "市区町村", "都道府県", "郵便番号", "国"],
        ["Street", "City", "State or province", "Postal code", "Country"],
        ["address.street_lines", "address.city", "address.state", "address.postal_code", "address.country"],
    ],
)
def test_parts_are_guessed_in_many_languages(names: list[str]) -> None:
    assert targets_of(["Email", *names]) == ["customer.email", STREET, CITY, STATE, CODE, LAND]


def test_the_exports_of_shops_are_known() -> None:
    shopify = ["First Name", "Last Name", "Email", "Total Spent", "Total Orders"]
    parts = ["Address1", "Address2", "City", "Province", "Province Code", "Country", "Country Code", "Zip"]
    assert targets_of([*shopify, *parts])[5:] == [STREET, SECOND, CITY, "", STATE, "", LAND, CODE]
    parts = ["Default Address Address1", "Default Address City", "Default Address Province Code"]
    parts += ["Default Address Country Code", "Default Address Zip"]
    assert targets_of([*shopify, *parts])[5:] == [STREET, CITY, STATE, LAND, CODE]
    orders = ["Name", "Email", "Financial Status", "Lineitem name", "Lineitem price", "Created at"]
    parts = ["Billing Street", "Billing Address1", "Billing City", "Billing Zip", "Shipping City"]
    found = targets_of([*orders, *parts], kind=CUSTOMERS_AND_ORDERS)
    assert found[6:] == ["", STREET, CITY, CODE, ""]
    woo = [
        "Order ID",
        "Billing Email",
        "Order Total",
        "Billing Address 1",
        "Billing City",
        "Billing Postcode",
    ]
    assert targets_of(woo, kind=CUSTOMERS_AND_ORDERS)[3:] == [STREET, CITY, CODE]


def test_a_state_beside_a_city_is_no_status() -> None:
    assert targets_of(["Email", "State"]) == ["customer.email", "customer.status"]
    assert targets_of(["Email", "City", "State"]) == ["customer.email", CITY, STATE]
    active = ["a@example.com", "Boston", "active"]
    assert targets_of(["Email", "City", "State"], active) == ["customer.email", CITY, "customer.status"]


def test_streets_that_would_refuse_most_rows_are_left_out() -> None:
    assert targets_of(["Email", "Address"], ["a@b.com", "1 Main St, Boston"]) == ["customer.email", ""]
    row = ["a@b.com", "Hauptstr. 5", "Köln"]
    assert targets_of(["Email", "Street", "City"], row) == ["customer.email", "", CITY]
    whole = [*row, "50667"]
    assert targets_of(["Email", "Street", "City", "Zip"], whole) == ["customer.email", STREET, CITY, CODE]
    assert targets_of(["Email", "Country code"], ["a@b.com", "+49"]) == ["customer.email", ""]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        *(("de", "DE"), ("Germany", "DE"), ("DEUTSCHLAND", "DE"), ("Allemagne", "DE"), ("USA", "US")),
        *(("U.S.A.", "US"), ("United Kingdom", "GB"), ("Côte d'Ivoire", ""), ("Česká republika", "CZ")),
        *(("États-Unis", "US"), ("日本", "JP"), ("Finland", "FI"), ("Atlantis", ""), ("", "")),
    ],
)
def test_countries_are_known_by_code_and_name(text: str, code: str) -> None:
    try:
        assert country(text) == code
    except ValueError:
        assert not code


def test_what_a_row_tells_of_a_known_address() -> None:
    before = Place(
        street_lines=("1 Main St", "Flat 2"),
        city="Boston",
        country="US",
        label="home",
        latitude=1.0,
        longitude=2.0,
    )
    joined = Place(street_lines=("1 Main St, Flat 2",), city="Boston", country="US")
    assert places.merged(before, joined) is None
    moved = places.merged(before, Place(street_lines=("2 Elm St",), city="Boston", country="US"))
    assert moved == Place(street_lines=("2 Elm St",), city="Boston", country="US", label="home")


@pytest.mark.parametrize("kind", KINDS)
async def test_templates_are_imported_as_they_are(shop: Shop, kind: int) -> None:
    if kind == BALANCES:  # of people who are there
        await run(shop, template(CUSTOMERS, CSV))
    done = await run(shop, template(kind, CSV), kind=kind)
    assert not await errors(shop, done.id)
    assert done.progress.customers_created == {CUSTOMERS: 2, BALANCES: 0}.get(kind, 1)
    if kind != KINDS[1]:
        (home,) = await homes(shop, "ann.lee@example.com")
        assert (home.city, home.country) == ("London", "GB")
