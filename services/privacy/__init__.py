"""The privacy service: a room that stands empty so far."""
