"""Notes of a business on a customer."""
