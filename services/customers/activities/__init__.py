"""Activities of customers."""
