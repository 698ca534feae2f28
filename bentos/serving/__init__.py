"""Serve bentos of this machine's store: `fashion serve` runs `python -m bentos.serving`."""
