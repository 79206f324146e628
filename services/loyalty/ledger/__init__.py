"""The ledger: every point that a member was given, spent, lost or got back."""
