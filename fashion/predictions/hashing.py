"""Hashes that order rows, pictures and clients, the same in every process: samples are drawn by them. Knows no log."""

import functools
import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def hash_text(text: str) -> int:
    """64 bits of a text, evenly distributed."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def hash_texts(texts: Iterable[str]) -> NDArray[np.uint64]:
    """(N,) the same of each of N texts."""
    blake2b = hashlib.blake2b
    digests = b"".join([blake2b(text, digest_size=8).digest() for text in map(str.encode, texts)])
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def hash_few(texts: Iterable[str]) -> NDArray[np.uint64]:
    """(N,) the same of texts that come again and again, such as clients: they are remembered."""
    return np.array([_hash_often(text) for text in texts], np.uint64)


@functools.lru_cache(maxsize=2**15)
def _hash_often(text: str) -> int:
    return hash_text(text)
