"""Accounts of the platform."""
