"""Find pictures that are the same or nearly so. Knows prepared images, not files and not what they show.

Candidates share 16 of the 64 bits of a difference hash (Krawetz, "Kind of like that", 2013); of these, those count
whose pixels correlate.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion.images.transform import Images

MIN_CORRELATION = 0.99
"""Of the pixels of near duplicates: copies that were scaled or saved anew as JPEG correlate with more, two of 1,797
handwritten digits with less."""
MIN_CONTRAST = 4.0
"""Standard deviation in grey levels below which a picture is too plain to be nearly like another."""
BITS = 16
"""Of the hash that two candidates share."""
NEIGHBOURS = 10
"""Candidates that follow a picture in the order of the hashes and that it is compared with."""


def content_keys(images: Images) -> list[bytes]:
    """Hash each of N images to 16 bytes: equal for equal pixels only."""
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]


def near_pairs(images: Images) -> list[tuple[int, int]]:
    """Pairs of rows that are nearly the same: saved anew, scaled, a little brighter. Equal ones may be among them.

    Args:
        images: (N, H, W) or (N, H, W, C) uint8.
    """
    if len(images) < 2:
        return []
    hashes = np.array([_difference_hash(image) for image in images], np.uint64)
    flat = images.reshape(len(images), -1)
    pairs = sorted(set(_candidates(hashes)))
    return [pair for pair in pairs if _correlation(flat[pair[0]], flat[pair[1]]) >= MIN_CORRELATION]


def join(count: int, pairs: Iterator[tuple[int, int]] | list[tuple[int, int]]) -> NDArray[np.int64]:
    """Number the groups that pairs of rows form, `(count,)`; rows in no pair are groups of their own."""
    parent = list(range(count))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in pairs:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return np.array([root(row) for row in range(count)], np.int64)


def equal_pairs(keys: list[bytes] | list[str | None]) -> Iterator[tuple[int, int]]:
    """Pair each row with the first one of the same key; None is nobody's key."""
    first: dict[bytes | str, int] = {}
    for row, key in enumerate(keys):
        if key is not None and first.setdefault(key, row) != row:
            yield first[key], row


def _difference_hash(image: Images) -> int:
    """64 bits: whether each of 8x8 cells is brighter than the one to its right."""
    grey = Image.fromarray(image).convert("L").resize((9, 8), Image.Resampling.BOX)
    cells = np.asarray(grey, np.int16)
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    for shift in range(0, 64, BITS):
        part = (hashes >> np.uint64(shift)) & np.uint64((1 << BITS) - 1)
        order = np.lexsort((hashes, part))
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            same = part[order[:-step]] == part[order[step:]]
            for one, other in zip(order[:-step][same], order[step:][same], strict=True):
                yield (int(min(one, other)), int(max(one, other)))


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Pearson's, of two pictures; -1 where one is too plain."""
    a, b = (each.astype(np.float32) - each.mean(dtype=np.float32) for each in (one, other))
    scale_a, scale_b = (float(np.sqrt(np.mean(each * each))) for each in (a, b))
    if min(scale_a, scale_b) < MIN_CONTRAST:
        return -1.0
    return float(np.mean(a * b)) / (scale_a * scale_b)
