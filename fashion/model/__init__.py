"""The model package and what is computed with it: predictions, explanations, severity."""
