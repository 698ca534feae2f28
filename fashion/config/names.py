"""What is meant where no other name or address is given: by commands, flows, services and their configuration."""

MODEL_NAME = "fashion-classifier"
"""The registered model, the bento of it, and its service in a cloud."""
PORT = 3000
URL = f"http://127.0.0.1:{PORT}"
"""Of the service on this machine."""
