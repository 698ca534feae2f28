"""The classifier as a BentoML service. Runs without torch, mlflow, metaflow and evidently."""
