"""Tiers that are set by hand for many members at once."""
