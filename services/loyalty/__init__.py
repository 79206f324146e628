"""Loyalty: members of programs, their points and their tiers."""
