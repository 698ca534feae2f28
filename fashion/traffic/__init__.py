"""Simulated users of a running service: which pictures they send, and how. Knows the service by its HTTP API only."""
