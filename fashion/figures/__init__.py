"""Figures of a data set, a training run and an evaluation, drawn with matplotlib. Knows arrays, not their source."""
