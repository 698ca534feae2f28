"""Named ways in which traffic differs from what a model was trained on, by which drift detection is measured."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fashion.images.corruptions import corrupt
from fashion.images.transform import Images

Rows = NDArray[np.int64]

PICTURES: dict[str, tuple[str, float]] = {
    "slightly brighter": ("brightness", 0.1),
    "brighter": ("brightness", 0.4),
    "slightly darker": ("darkness", 0.2),
    "darker": ("darkness", 0.6),
    "pale": ("contrast", 0.3),
    "very pale": ("contrast", 0.6),
    "grainy": ("noise", 0.05),
    "noisy": ("noise", 0.2),
    "soft": ("blur", 0.2),
    "blurred": ("blur", 0.5),
    "tilted": ("rotation", 0.15),
    "on its side": ("rotation", 1.0),
    "half a turn": ("rotation", 2.0),
    "to the right": ("shift", 0.2),
    "half outside": ("shift", 0.6),
    "smaller": ("shrinking", 0.3),
    "half as large": ("shrinking", 1.0),
    "partly inverted": ("inversion", 0.2),
    "negative": ("inversion", 1.0),
    "partly covered": ("occlusion", 0.3),
    "half covered": ("occlusion", 0.6),
}
"""Name -> corruption and amount, of every picture."""


def _only(*classes: int) -> Callable[[Rows, np.random.Generator], NDArray[np.float64]]:
    return lambda labels, rng: np.isin(labels, classes).astype(float)


def _without(label: int) -> Callable[[Rows, np.random.Generator], NDArray[np.float64]]:
    return lambda labels, rng: (labels != label).astype(float)


def _more(label: int, times: float) -> Callable[[Rows, np.random.Generator], NDArray[np.float64]]:
    return lambda labels, rng: np.where(labels == label, times, 1.0)


CLASSES = {
    "no shirts": _without(6),
    "three times the boots": _more(9, 3.0),
    "shoes only": _only(5, 7, 9),
    "tops only": _only(0, 2, 4, 6),
}
"""Name -> how likely a row is to be drawn, by its label."""

NAMES = (*PICTURES, *CLASSES)


def apply(images: Images, name: str) -> Images:
    """Pictures under a shift; as they are, where the shift is of classes."""
    return corrupt(images, *PICTURES[name], seed=1) if name in PICTURES else images


def sample_rows(labels: Rows, name: str | None, count: int, rng: np.random.Generator) -> Rows:
    """Rows of a window under a shift, without replacement; None is no shift."""
    weights = CLASSES[name](labels, rng) if name in CLASSES else np.ones(len(labels))
    return rng.choice(len(labels), count, replace=False, p=weights / weights.sum())
