"""Starts, hosts and stops services and the servers that they need."""
