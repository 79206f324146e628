"""Contact data of two customers, compared and not told."""
