"""Who is in which segment, as it was heard."""
