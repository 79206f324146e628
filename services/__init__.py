"""The services: one package per bounded context."""
