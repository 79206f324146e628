"""Customers: businesses, profiles, addresses and notes; the only home of contact data."""
