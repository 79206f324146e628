"""Businesses and personal values for the flows."""

from tests.customers.conftest import other_shop, shop
from tests.scan.sentinels import sentinels

__all__ = ["other_shop", "sentinels", "shop"]
