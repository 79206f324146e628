"""Exports: a business's customers as a file."""
