"""Programs: what a business promises, and the rules by which points are given."""
