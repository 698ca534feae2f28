"""Figures of an evaluation, drawn with matplotlib."""
