"""The notifications service: a room that stands empty so far."""
