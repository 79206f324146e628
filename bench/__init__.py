"""Measures what quality asks for: each figure beside its limit, in the same run."""
