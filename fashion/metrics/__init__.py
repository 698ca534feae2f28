"""Measures of classification and of calibration. Knows arrays only."""
