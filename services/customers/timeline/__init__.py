"""The timeline of a customer: everything that happened, in one list."""
