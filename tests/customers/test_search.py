"""Finding customers over gRPC by what a person types."""

from typing import Any

import grpc

from regulars.customers.v1 import customers_pb2 as pb
from regulars.customers.v1.search_pb2 import SearchCustomersResponse
from tests.customers.shop import Shop

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def names(answer: SearchCustomersResponse) -> list[str]:
    return [customer.full_name for customer in answer.customers]


PEOPLE: list[dict[str, Any]] = [
    {"first_name": "John", "last_name": "Smith", "email": "john.smith@acme.example", "phone": "+14155552671"},
    {"first_name": "Johanna", "last_name": "Smithers", "email": "jo@other.example"},
    {"first_name": "Zoë", "last_name": "Ångström", "email": "zoe@north.example", "phone": "+46701740605"},
    {"first_name": "Γιώργος", "last_name": "Παπαδόπουλος", "email": "gp@south.example"},
    {"first_name": "Сергей", "last_name": "Кузнецов", "email": "sk@east.example"},
    {"full_name": "王小明", "email": "wang@east.example"},
    {"first_name": "Siobhán", "last_name": "O’Brien", "email": "shiv@west.example"},
    {"first_name": "محمد", "last_name": "أحمد", "email": "ma@south.example"},
    {
        "first_name": "Maria",
        "last_name": "Fernandez Lopez",
        "phone": "+34612345678",
        "sources": [pb.Source(name="shopify", external_id="A-10042")],
    },
]


async def people(shop: Shop) -> None:
    for fields in PEOPLE:
        await shop.create(**fields)


TYPED = [
    ("John Smith", "John Smith"),
    ("smith john", "John Smith"),
    ("SMITH", "John Smith"),
    ("joh smi", "John Smith"),
    ("mithe", "Johanna Smithers"),
    ("Jhon Smiht", "John Smith"),
    ("smyth jon", "John Smith"),
    ("john.smith@acme.example", "John Smith"),
    ("JOHN.SMITH@ACME.EXAMPLE", "John Smith"),
    ("john.smi", "John Smith"),
    ("hn.smith@ac", "John Smith"),
    ("@acme.example", "John Smith"),
    ("(415) 555-2671", "John Smith"),
    ("+1 415 555 2671", "John Smith"),
    ("001 415 555 2671", "John Smith"),
    ("2671", "John Smith"),
    ("5552", "John Smith"),
    ("smith 2671", "John Smith"),
    ("0701 740 605", "Zoë Ångström"),
    ("zoe angstrom", "Zoë Ångström"),
    ("ÅNGSTRÖM", "Zoë Ångström"),
    ("angstrm", "Zoë Ångström"),
    ("papadopoulos", "Γιώργος Παπαδόπουλος"),
    ("παπαδοπουλος", "Γιώργος Παπαδόπουλος"),
    ("giorgos papadopulos", "Γιώργος Παπαδόπουλος"),
    ("кузнецов", "Сергей Кузнецов"),
    ("kuznetsov sergei", "Сергей Кузнецов"),
    ("小明", "王小明"),
    ("王", "王小明"),
    ("wang", "王小明"),
    ("obrien", "Siobhán O’Brien"),
    ("O'Brien siobhan", "Siobhán O’Brien"),
    ("احمد", "محمد أحمد"),
    ("a-10042", "Maria Fernandez Lopez"),
    ("lopez maria", "Maria Fernandez Lopez"),
    ("fernandes lopes", "Maria Fernandez Lopez"),
    ("612 345", "Maria Fernandez Lopez"),
    ("ferxandxz maria", "Maria Fernandez Lopez"),
]


async def test_search_finds_people_as_they_are_typed(shop: Shop) -> None:
    await people(shop)
    found = {query: (await shop.search(query)).customers for query, _ in TYPED}
    wrong = {query: first for query, first in TYPED if not found[query] or found[query][0].full_name != first}
    assert not wrong
