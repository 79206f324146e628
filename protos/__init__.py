"""The contracts, what generates code from them, and what checks them."""
