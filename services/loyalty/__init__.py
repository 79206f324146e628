"""Loyalty: who is a member of a business's program."""
