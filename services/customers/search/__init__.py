"""Finding customers by what a person types, by filters, and in any order."""
