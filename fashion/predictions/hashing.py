"""Hashes that order rows, pictures and clients, the same in every process: samples are drawn by them. Knows no log."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash_text(text: str) -> int:
    """64 bits of a text, evenly distributed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def hash_texts(texts: Iterable[str]) -> NDArray[np.uint64]:
    """(N,) the same of each of N texts."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, ">u8").astype(np.uint64)
