"""What the timeline hears: one line for each event that it shows."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from google.protobuf.message import Message

from libs.db import Tx
from libs.deliveries import Handler
from libs.envelope import Event
from regulars.customers.v1 import events_pb2 as heard
from services.customers.timeline import actions


def shown(message: type[Message], *facts: str, inside: str = "") -> Handler:
    """Shows an event on the timeline of the customer that it is about, with these of its texts and numbers.

    The message, or its field `inside`, has `customer_id` and `business_id`.
    """

    async def handle(tx: Tx, rt: Any, events: Sequence[Event[Message]]) -> None:
        for event in events:
            told: Any = getattr(event.message, inside) if inside else event.message
            await actions.note_report(
                tx,
                UUID(told.business_id),
                UUID(told.customer_id),
                event.id,
                event.subject,
                event.time,
                {name: getattr(told, name) for name in facts},
            )

    return Handler(message, handle)


HANDLERS = [
    shown(heard.OrderCompleted, "order_id", "total_minor", inside="order"),
    shown(heard.OrderCancelled, "order_id", "total_minor", inside="order"),
    shown(heard.OrderRefunded, "order_id", "refunded_total_minor", inside="order"),
]
