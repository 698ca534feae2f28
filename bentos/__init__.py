"""Services as BentoML bentos: a folder each, what they share in `web`, and how they are built and served."""
