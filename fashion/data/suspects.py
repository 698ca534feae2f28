"""Rank rows by how likely their label is wrong, and by how unusual they are. Knows arrays; needs no trained network.

Each row's probabilities come from a classifier that has not seen it (five folds). Rows are ranked by the probability of
their own label, the self-confidence of Northcutt, Jiang and Chuang, "Confident Learning" (JAIR 70, 2021,
arXiv:1911.00068), times the mean probability, among all rows with that label, of the class that is likelier: a shirt
that looks like a pullover is often a shirt, one that looks like a boot hardly ever. The classifier is ridge regression
on whitened random patches, pooled in a 3x3 grid: Coates, Lee and Ng, "An Analysis of Single-Layer Networks in
Unsupervised Feature Learning" (AISTATS 2011).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion.images.transform import Images

Floats = NDArray[np.float32]

EDGE = 28
"""Pixels: larger pictures are made smaller, since labels are seldom wrong in a detail."""
PATCH, STRIDE, GRID = 6, 2, 3
FILTERS = 200
"""Random patches of the data that others are compared with."""
SAMPLED_PATCHES = 50_000
CONTRAST, WHITENING, THRESHOLD = 0.01, 0.1, 0.25
"""As in the paper: added to the variance of a patch and of a direction, and what a filter's answer must exceed."""
RIDGE = 0.01
"""Penalty, as a share of the features' mean variance."""
FOLDS = 5
COMPONENTS = 16
"""Principal components of the features in which unusual rows are far from their class."""
MOST_ROWS = 60_000
"""Rows that are looked at: their features are held in memory."""


@dataclass(frozen=True, eq=False)
class Suspects:
    """N rows, each with what speaks against its label."""

    confidence: Floats
    """(N,) probability of the row's own label, of a classifier that has not seen the row."""
    likelier: NDArray[np.int64]
    """(N,) the most probable other class."""
    usual: Floats
    """(N,) mean probability of that class among the rows with the same label."""
    distance: Floats
    """(N,) how far the row is from the usual of its nearest class."""

    def most_suspicious(self, count: int) -> NDArray[np.int64]:
        """The rows whose label is most likely wrong, the likeliest first."""
        return np.argsort(self.confidence * self.usual, kind="stable")[:count]

    def most_unusual(self, count: int) -> NDArray[np.int64]:
        """The rows that are farthest from every class, the farthest first."""
        return np.argsort(-self.distance, kind="stable")[:count]


def look(images: Images, labels: NDArray[np.int64], *, num_classes: int, seed: int = 0) -> Suspects:
    """Look at rows that may be of any split, training included.

    Args:
        images: (N, H, W) or (N, H, W, C) uint8; at least `FOLDS` rows.
        labels: (N,)
        num_classes: of the data set.
        seed: of the patches and the folds.
    """
    rng = np.random.default_rng(seed)
    rows = features(images, rng)
    probabilities = out_of_fold(rows, labels, num_classes, rng)
    own = np.arange(len(labels)), labels
    others = probabilities.copy()
    others[own] = -1
    likelier = others.argmax(axis=1)
    sums = np.zeros((num_classes, num_classes), np.float32)
    np.add.at(sums, labels, probabilities)
    usual = (sums / np.maximum(np.bincount(labels, minlength=num_classes), 1)[:, None])[labels, likelier]
    return Suspects(probabilities[own], likelier, usual.astype(np.float32), _distances(rows, labels))


def features(images: Images, rng: np.random.Generator) -> Floats:
    """Describe each image by how strongly each filter answers in each part of it: `(N, 9 * FILTERS + 1)`.

    Args:
        images: (N, H, W) or (N, H, W, C) uint8.
        rng: chooses the filters.
    """
    small = _small(images)
    some = small[rng.choice(len(small), min(len(small), 2000), replace=False)]
    patches = _patches(some, 1).reshape(-1, PATCH * PATCH * small.shape[-1])
    patches = patches[rng.choice(len(patches), min(len(patches), SAMPLED_PATCHES), replace=False)]
    mean = patches.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(patches.T))
    whitening = ((directions / np.sqrt(np.maximum(variances, 0) + WHITENING)) @ directions.T).astype(np.float32)
    filters = ((patches - mean) @ whitening)[rng.choice(len(patches), min(len(patches), FILTERS), replace=False)]
    filters /= np.linalg.norm(filters, axis=1, keepdims=True) + 1e-6
    onto = whitening @ filters.T
    parts = [_pooled(_patches(small[start : start + 500], STRIDE) - mean, onto) for start in range(0, len(small), 500)]
    rows = np.sqrt(np.concatenate(parts))
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-3)
    return np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1, dtype=np.float32)


def out_of_fold(rows: Floats, labels: NDArray[np.int64], num_classes: int, rng: np.random.Generator) -> Floats:
    """Probabilities `(N, classes)` of each row by ridge regression on the other folds, calibrated by one temperature.

    Args:
        rows: (N, D) features.
        labels: (N,)
        num_classes: of the data set.
        rng: of the folds.
    """
    targets = np.eye(num_classes, dtype=np.float32)[labels]
    fold = rng.permutation(len(rows)) % FOLDS
    gram, cross = rows.T @ rows, rows.T @ targets
    scores = np.empty((len(rows), num_classes), np.float32)
    for each in range(FOLDS):
        unseen = fold == each
        known = gram - rows[unseen].T @ rows[unseen]
        penalty = RIDGE * np.trace(known) / len(known) * np.eye(len(known), dtype=np.float32)
        scores[unseen] = rows[unseen] @ np.linalg.solve(known + penalty, cross - rows[unseen].T @ targets[unseen])
    scales = np.geomspace(1, 50, 30)
    losses = [-np.log(_softmax(scale * scores)[np.arange(len(labels)), labels] + 1e-9).mean() for scale in scales]
    return _softmax(scales[int(np.argmin(losses))] * scores)


def _small(images: Images) -> Floats:
    """`(N, h, w, C)` in [0, 1], of at most `EDGE` pixels."""
    if images.shape[1] > EDGE:
        size = (EDGE, EDGE)
        images = np.stack([np.asarray(Image.fromarray(each).resize(size, Image.Resampling.BOX)) for each in images])
    small: Floats = (images if images.ndim == 4 else images[..., None]).astype(np.float32) / np.float32(255)
    return small


def _patches(images: Floats, stride: int) -> Floats:
    """`(N, rows, columns, PATCH * PATCH * C)`, each with mean 0 and, unless it is plain, variance 1."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (PATCH, PATCH), axis=(1, 2))[:, ::stride, ::stride]
    flat = windows.reshape(*windows.shape[:3], -1)
    flat = flat - flat.mean(axis=-1, keepdims=True)
    normalised: Floats = flat / np.sqrt(flat.var(axis=-1, keepdims=True) + CONTRAST)
    return normalised


def _pooled(patches: Floats, onto: Floats) -> Floats:
    """Mean answer of each filter in each cell of the grid: `(N, GRID * GRID * filters)`."""
    answers = np.maximum(patches.astype(np.float32) @ onto - THRESHOLD, 0)
    cells = [np.array_split(np.arange(length), GRID) for length in answers.shape[1:3]]
    pooled = [
        answers[:, down[0] : down[-1] + 1, across[0] : across[-1] + 1].mean(axis=(1, 2))
        for down in cells[0]
        for across in cells[1]
        if len(down) and len(across)
    ]
    return np.concatenate(pooled, axis=1)


def _distances(rows: Floats, labels: NDArray[np.int64]) -> Floats:
    """Distance of each row from the nearest class's mean, in the leading principal components."""
    centred = rows[:, :-1]
    _, directions = np.linalg.eigh(centred.T @ centred)
    leading = centred @ directions[:, -COMPONENTS:]
    leading = leading / (leading.std(axis=0) + 1e-6)
    means = np.stack([leading[labels == label].mean(axis=0) for label in np.unique(labels)])
    nearest = np.full(len(leading), np.inf, np.float32)
    for mean in means:
        nearest = np.minimum(nearest, np.linalg.norm(leading - mean, axis=1))
    return nearest.astype(np.float32)


def _softmax(scores: NDArray[np.floating]) -> Floats:
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities: Floats = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities
