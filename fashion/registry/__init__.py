"""Runs, model versions and lineage: the one home of MLflow."""
