"""The months that activities are kept by: one that is missing is made by who needs it first."""

import logging
from collections.abc import Iterable
from datetime import date, datetime, timedelta

from sqlalchemy.exc import DBAPIError

from libs import clock
from libs.db import Database
from services.customers.activities import actions, rules

log = logging.getLogger(__name__)

TRY_AGAIN = timedelta(minutes=1)


class Months:
    """The months that this process knows to be there."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: set[date] = set()
        self._not_before: dict[date, datetime] = {}

    async def make(self, instants: Iterable[datetime]) -> None:
        """Makes the months of these instants that are missing, so that each finds its partition.

        One that cannot be made now is left: its activities go to the default partition, and move when it is made.
        """
        now = clock.now()
        wanted = {rules.month(at) for at in instants if rules.has_month(at, now)} - self._known
        for month in sorted(wanted):
            if now < self._not_before.get(month, now):
                continue
            try:
                async with self._db.tx() as tx:
                    await actions.make_month(tx, month)
            except DBAPIError as error:
                self._not_before[month] = now + TRY_AGAIN
                log.warning(
                    "A month of activities was not made",
                    extra={"month": month.isoformat(), "reason": type(error.orig).__name__},
                )
            else:
                self._known.add(month)
