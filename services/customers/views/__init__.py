"""Saved views: searches with a name."""
