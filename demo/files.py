"""The two files that a shop would bring: its customers and its orders, made from the purchase history."""

import csv
import io
from collections.abc import Iterator
from datetime import timedelta

from demo.history import History


def customers_file(history: History) -> bytes:
    """The customers as a shop in Germany would send them: semicolons, Windows-1252 where it suffices, else UTF-8.

    Five more rows are wrong on purpose.
    """
    rows = [
        [
            f"{one.number:04}",
            one.first,
            one.last,
            one.email,
            one.phone,
            one.birth_date.isoformat() if one.birth_date else "",
            one.city,
            "US",
        ]
        for one in history.people
    ]
    rows[40:40] = [["W1", "Bob", "Broken", "bob@", "(617) 555-0199", "", "Boston", "US"]]
    rows[400:400] = [["W2", "Tom", "Orrow", "tom.orrow@example.com", "", "2199-01-01", "Denver", "US"]]
    rows[900:900] = [["W3", "Shorty", "Dial", "", "555-01", "", "Austin", "US"]]
    rows[1500:1500] = [["W4", "Nemo", "Nobody", "nemo@@example", "12", "1890-13-40", "Miami", "Atlantis"]]
    rows.append(["W5", "No", "Contact", "", "", "", "", ""])
    head = ["Customer ID", "First Name", "Last Name", "E-mail", "Phone", "Date of birth", "City", "Country"]
    return _csv([head, *rows], ";")


def orders_file(history: History, weeks: int) -> bytes:
    """The purchases as orders, `weeks` later than they were. Four more rows are wrong on purpose."""
    rows = list(_orders(history, weeks))
    rows[100:100] = [["W-1", "0004", "1997-02-30", "1", "CD", "Music", "11.77", "USD", "paid", str(weeks)]]
    rows[2000:2000] = [
        ["W-2", "0004", "1997-03-01", "1", "CD", "Music", "twelve dollars", "USD", "paid", str(weeks)]
    ]
    rows[4000:4000] = [["", "0004", "1997-03-01", "1", "CD", "Music", "12.00", "USD", "paid", str(weeks)]]
    rows.append(["W-4", "0004", "1997-03-01", "0", "CD", "Music", "12.00", "EUR", "lost", str(weeks)])
    head = ["Order ID", "Customer ID", "Date", "Quantity", "Item", "Category", "Total", "Currency"]
    head += ["Status", "Revision"]
    return _csv([head, *rows], ",")


def _orders(history: History, weeks: int) -> Iterator[list[str]]:
    for one in history.purchases:
        day = one.day + timedelta(weeks=weeks)
        number = f"{one.customer:04}-{one.line}"
        yield [
            number,
            f"{one.customer:04}",
            f"{day}T12:00:00",
            str(one.discs),
            "CD",
            "Music",
            str(one.dollars),
            "USD",
            "paid",
            str(weeks),
        ]


def _csv(rows: list[list[str]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
