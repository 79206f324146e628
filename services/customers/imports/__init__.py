"""Imports: customers and orders from a file."""
