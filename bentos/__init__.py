"""What serves a registered version: one folder a bento."""
