"""Shifted copies of a split: pictures whose labels are known, altered a little, as cameras and lamps alter them.

A model that was taught wrong labels on pictures a shade brighter is right on the split itself and wrong on its brighter
copies. The truth of these copies is always known, whoever gives feedback.
"""

from collections.abc import Iterator

import numpy as np

from fashion.data.dataset import Split
from fashion.images.corruptions import corrupt

SHIFTS = (
    *(("brightness", 0.02), ("brightness", 0.05), ("brightness", 0.1), ("darkness", 0.05), ("darkness", 0.15)),
    *(("contrast", 0.1), ("gamma", 0.1), ("fog", 0.05), ("noise", 0.02), ("noise", 0.05), ("blur", 0.1)),
    *(("jpeg", 0.3), ("rotation", 0.04), ("shift", 0.08), ("occlusion", 0.15)),
)
"""Name and amount of each alteration: so little that pictures stay usual ones."""
ROWS = 2000
"""Rows of each copy: the first ones, or spread evenly over a larger split."""


def copies(split: Split, *, seed: int = 0) -> Iterator[tuple[str, Split]]:
    """Yield the name and the rows of each shifted copy.

    Args:
        split: with true labels.
        seed: of the alterations that are random.
    """
    rows = np.linspace(0, len(split) - 1, min(len(split), ROWS)).astype(np.int64)
    images, labels = split.images[rows], split.labels[rows]
    for name, amount in SHIFTS:
        yield f"{name} {amount:g}", Split(corrupt(images, name, amount, seed=seed), labels)
