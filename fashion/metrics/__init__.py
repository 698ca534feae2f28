"""Scores of labels and of probabilities: classification, comparison, calibration. Knows arrays only."""
