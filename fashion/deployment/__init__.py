"""Rollouts and monitoring on Google Cloud. Knows its APIs; knows no model, no BentoML and no Metaflow."""
