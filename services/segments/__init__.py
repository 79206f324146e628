"""The segments service: a room that stands empty so far."""
