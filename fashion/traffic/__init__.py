"""Simulated users of a running service: which pictures they send, and how."""
