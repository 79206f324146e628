"""Orders of a business: recorded from its order system, counted per customer."""
