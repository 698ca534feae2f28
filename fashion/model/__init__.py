"""The model package and what is computed with it: predictions, explanations, severity. Knows no registry and no log."""
