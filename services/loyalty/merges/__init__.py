"""Two customers who turn out to be one: what moves, and how it moves back."""
