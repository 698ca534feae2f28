"""Blobs: bytes under names, in a folder or a bucket. Knows nothing of what they mean."""
