"""Rollouts: a revision gets traffic in steps, or gives it back. Knows Cloud Run, neither BentoML nor flows."""
