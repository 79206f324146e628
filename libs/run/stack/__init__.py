"""The local stack: PostgreSQL, NATS and Redis from wheels, and one process per service."""
