"""Runs, model versions and lineage: the one home of MLflow. Knows packages as files, not how they are made."""
