"""Tiers: how far a member has come, what it takes, and what it gives."""
