"""Households: members who share what they can spend."""
