"""JSON to messages and back, compiled once per descriptor."""
