"""Customers with their own token."""
