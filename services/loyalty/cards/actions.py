"""Writes about stamp cards, under the locks of their accounts."""

from collections.abc import Iterable, Mapping
from uuid import UUID

import orjson
from sqlalchemy import text

from libs.db import Tx
from libs.outbox import Fact, emit_all
from services.loyalty.cards.rules import Card

Key = tuple[UUID, UUID]
_CARDS = text("""
    insert into cards as c
    select r.* from json_populate_recordset(null::cards, cast(:rows as json)) r
    on conflict on constraint cards_pkey do update
    set stamps = excluded.stamps, filled = excluded.filled, told = excluded.told, version = excluded.version
""")
_STAMPS = text("""
    insert into card_stamps as s
    select r.* from json_populate_recordset(null::card_stamps, cast(:rows as json)) r
    on conflict on constraint card_stamps_pkey do update set stamps = excluded.stamps
""")


async def save(
    tx: Tx,
    businesses: Mapping[UUID, UUID],
    cards: Mapping[Key, Card],
    stamps: Mapping[Key, tuple[UUID, int]],
    facts: Iterable[Fact],
) -> None:
    """Writes cards (by account and rule) and stamps (by order and rule: account, stamps), and emits their events.

    `businesses` has the business of each account.
    """
    if cards:
        rows = [
            {
                "tenant_id": tx.tenant_id,
                "account_id": account_id,
                "rule_id": rule_id,
                "business_id": businesses[account_id],
                "stamps": card.stamps,
                "filled": card.filled,
                "told": card.told,
                "version": card.version,
            }
            for (account_id, rule_id), card in cards.items()
        ]
        await tx.execute(_CARDS, {"rows": orjson.dumps(rows).decode()})
    if stamps:
        put = [
            {
                "tenant_id": tx.tenant_id,
                "order_id": order_id,
                "rule_id": rule_id,
                "business_id": businesses[account_id],
                "account_id": account_id,
                "stamps": count,
            }
            for (order_id, rule_id), (account_id, count) in stamps.items()
        ]
        await tx.execute(_STAMPS, {"rows": orjson.dumps(put).decode()})
    await emit_all(tx, list(facts))
