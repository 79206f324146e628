"""The migrations of the plumbing tables: `libs/migrate` runs them in every schema, before its own."""
