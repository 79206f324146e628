"""People who do not exist, always the same ones: names from many places, addresses and numbers nobody has."""

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

SEED = 1997
FIRST = """
James Mary John Patricia Robert Jennifer Michael Linda William Elizabeth David Barbara Richard Susan Joseph
Jessica Thomas Sarah Karen Christopher Nancy Daniel Lisa Matthew Betty Anthony Margaret Mark Sandra Donald
Ashley Steven Kimberly Paul Emily Andrew Donna Joshua Michelle Kenneth Carol Kevin Amanda Brian Dorothy
George Melissa Edward Deborah Hélène Zoë José María Jürgen Søren Åsa Łukasz Chloé Renée Björn Anaïs Iñigo
Olga Dmitri Yiannis Eleni Kenji Yuki Mei Priya Arjun Fatima Omar Chidi Ngozi Kwame Ama Leila Noah Olivia
Liam Emma Ethan Sofia Mateo Isabella Lucas
""".split()  # noqa: SIM905 – a list of words
LAST = """
Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez Wilson
Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez Lewis
Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams Nelson Baker Hall Rivera
Campbell Mitchell Carter Roberts Müller Schäfer Weiß Lindström Nyström Kowalski Nowak Dvořák Papadopoulos
Ivanova Petrov O'Brien D'Angelo Núñez Peña Çelik Yılmaz Tanaka Suzuki Chen Wang Patel Sharma Okafor Mensah
Haddad Rossi Ferrari Dubois Lefèvre Jensen Sørensen
""".split()  # noqa: SIM905 – a list of words
# Known by their own script.
ABROAD = (("Νίκος", "Παπαδόπουλος"), ("Елена", "Смирнова"), ("山田", "太郎"), ("Мария", "Иванова"))
CITIES = (
    *(
        ("Boston", "617"),
        ("New York", "212"),
        ("Philadelphia", "215"),
        ("Washington", "202"),
        ("Miami", "305"),
    ),
    *(
        ("Atlanta", "404"),
        ("Chicago", "312"),
        ("Detroit", "313"),
        ("Cleveland", "216"),
        ("Pittsburgh", "412"),
    ),
    *(("Nashville", "615"), ("New Orleans", "504"), ("Houston", "713"), ("Dallas", "214"), ("Austin", "512")),
    *(
        ("Denver", "303"),
        ("Phoenix", "602"),
        ("Las Vegas", "702"),
        ("Salt Lake City", "801"),
        ("Seattle", "206"),
    ),
    *(("Portland", "503"), ("San Francisco", "415"), ("San Jose", "408"), ("Los Angeles", "213")),
)
# The last two digits of 555-01xx, the numbers that are kept free for people who do not exist.
NUMBERS = 100


@dataclass(frozen=True, slots=True)
class Someone:
    """A person who does not exist. `phone` is as an American writes it."""

    number: int
    first: str
    last: str
    email: str
    phone: str
    birth_date: date | None
    city: str


def people(count: int) -> Iterator[Someone]:
    """The first `count` of them, at most 2,400; the same at every call."""
    dice = random.Random(SEED)  # noqa: S311 – no secret is made of it
    for number in range(1, count + 1):
        first, last = dice.choice(FIRST), dice.choice(LAST)
        if number % 600 == 0:
            first, last = ABROAD[number // 600 - 1]
        city, area = CITIES[number % len(CITIES)]
        born = date(1997, 1, 1) - timedelta(days=dice.randrange(17 * 365, 70 * 365))
        yield Someone(
            number=number,
            first=first,
            last=last,
            email=f"{_plain(first)}.{_plain(last)}.{number}@example.com".lstrip("."),
            phone=f"({area}) 555-01{number // len(CITIES) % NUMBERS:02}",
            birth_date=born if dice.random() < 0.7 else None,
            city=city,
        )


def _plain(name: str) -> str:
    """The Latin letters of a name, lower case, without their marks."""
    letters = unicodedata.normalize("NFKD", name).lower()
    return "".join(letter for letter in letters if letter.isascii() and letter.isalpha())
