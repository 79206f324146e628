"""Reads about stamp cards."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from libs.db import Tx
from services.loyalty.cards.rules import Card
from services.loyalty.cards.tables import card_stamps, cards
from services.loyalty.ledger import queries as ledger

_c, _s = cards.c, card_stamps.c


async def cards_of(tx: Tx, account_ids: Sequence[UUID]) -> dict[tuple[UUID, UUID], Card]:
    """The cards of accounts, by account and rule."""
    wanted = select(cards).where(_c.tenant_id == tx.tenant_id, _c.account_id.in_(account_ids))
    return {
        (row.account_id, row.rule_id): Card(
            stamps=row.stamps, filled=row.filled, told=row.told, version=row.version
        )
        for row in await tx.execute(wanted)
    }


async def cards_of_member(tx: Tx, program_id: UUID, customer_id: UUID) -> dict[UUID, Card]:
    """The cards of a customer in a program, by rule."""
    account = await ledger.account_id(tx, program_id, customer_id)
    found = await cards_of(tx, [account]) if account else {}
    return {rule_id: card for (_, rule_id), card in found.items()}


async def stamps_of_orders(tx: Tx, order_ids: Sequence[UUID]) -> dict[tuple[UUID, UUID], int]:
    """What orders put on cards, by order and rule."""
    wanted = select(card_stamps).where(_s.tenant_id == tx.tenant_id, _s.order_id.in_(order_ids))
    return {(row.order_id, row.rule_id): int(row.stamps) for row in await tx.execute(wanted)}
