"""Blobs: bytes under names, in a folder or a bucket."""
