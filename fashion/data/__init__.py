"""Versions of a data set: fetching, verifying, loading, splitting and checking them. Knows no model."""
