"""Customers: who they are, and how each business sees them."""
