"""Versions of a data set: where they are from, what is in them, and how they are split."""
