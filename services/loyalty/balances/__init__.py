"""Opening balances: points that members bring along from other programs."""
