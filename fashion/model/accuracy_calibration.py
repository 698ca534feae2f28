"""Fit the estimate of a window's accuracy to pictures that were corrupted in many ways. Knows no windows of traffic.

Windows are simulated of the corrupted rows and of rows as they were: of every share of both, and of mixes of classes
that are not the usual one, so that neither few bad pictures nor another mix is taken for what it is not.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.images.corruptions import CORRUPTIONS, corrupt
from fashion.images.transform import Images
from fashion.model.accuracy import BEYOND, FLOOR, OF_ROWS, UNITS, AccuracyEstimator, Linear, means
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.model.trees import LEAF, Trees
from fashion.model.typicality import Rows, Typicality

AMOUNTS = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0)
"""Strengths of each corruption: from hardly visible to ruined."""
POOL_ROWS = 300
"""Held-out pictures under each corruption and strength."""
WINDOW_ROWS = 1000
"""Of each simulated window."""
SHARES = (1.0, 0.6, 0.35, 0.2, 0.1, 0.05)
"""Of corrupted rows in a window."""
TIMES, MANY_ROWS = 3, 2000
"""Windows of each pool and share, where there are so many held-out pictures; one where there are fewer."""
CLEAN_WINDOWS = 100
"""Windows without corrupted rows, as many times."""
MIXED, MIXED_CLEAN = 0.33, 0.67
"""Share of the windows with another mix of classes, and of those without corrupted rows."""
CONCENTRATIONS = (0.1, 0.3, 1.0)
"""Of the Dirichlet distributions that mixes are drawn from: from nearly one class to all of them."""
TREES = {"n_estimators": 100, "learning_rate": 0.1, "max_depth": 4, "subsample": 0.5, "min_samples_leaf": 10}
"""Chosen by leaving each kind of corruption out."""
FOLDS = 3
"""Parts of the kinds of corruption that the error is measured on, each by a fit to the others."""
ERROR_QUANTILE = 0.95
"""Share of the windows that the error of the estimate is within, each left out with its kind of corruption."""


@dataclass(frozen=True, eq=False)
class Pool:
    """N rows of pictures under one change."""

    kind: str
    """The corruption; empty for none."""
    signals: NDArray[np.int64]
    """(N, OF_ROWS)"""
    predicted: NDArray[np.int64]
    """(N,) classes."""
    labels: NDArray[np.int64]
    """(N,) true classes."""


@dataclass(frozen=True, eq=False)
class Pools:
    """Pictures under many corruptions, and the same pictures as they were."""

    estimator: AccuracyEstimator
    """Without a rule: it finds signals."""
    clean: Pool
    corrupted: tuple[Pool, ...]
    seed: int
    """Of the windows and the trees."""

    def fit(self, *, without: Collection[str] = ()) -> AccuracyEstimator:
        """Fit the estimate.

        Args:
            without: kinds of corruption to leave out.
        """
        kinds, changes, falls = self._windows(set(without))
        errors = np.empty(len(falls))
        fold = _folds(kinds, self.seed)
        for each in range(FOLDS):
            held = fold == each
            rule = _trees(changes[~held], falls[~held], self.seed)
            estimates = np.array([rule.contributions(row).sum() for row in changes[held]])
            errors[held] = np.abs(falls[held] - estimates) / (FLOOR + np.abs(estimates))
        error = float(np.quantile(errors, ERROR_QUANTILE))
        return dataclasses.replace(self.estimator, rule=_trees(changes, falls, self.seed), error=error)

    def _windows(self, without: set[str]) -> tuple[NDArray[np.str_], Rows, Rows]:
        """Kind (W,), changes of the signals (W, K) and fall of accuracy (W,) of simulated windows."""
        rng = np.random.default_rng(self.seed)
        kinds, changes, falls = [], [], []
        for pool, share, mix in self._plans(rng):
            if pool.kind in without:
                continue
            sums, right = self._window(pool, share, mix, rng)
            kinds.append(pool.kind)
            changes.append(self.estimator.changes(sums))
            falls.append(self.estimator.accuracy - right)
        return np.array(kinds), np.array(changes), np.array(falls)

    def _plans(self, rng: np.random.Generator) -> Iterator[tuple[Pool, float, Rows | None]]:
        for _ in range(TIMES if len(self.clean.labels) >= MANY_ROWS else 1):
            for pool in self.corrupted:
                for share in SHARES:
                    yield pool, share, self._mix(MIXED, rng)
            for _ in range(CLEAN_WINDOWS):
                yield self.clean, 0.0, self._mix(MIXED_CLEAN, rng)

    def _mix(self, probability: float, rng: np.random.Generator) -> Rows | None:
        """Shares of the classes; None for those that there are."""
        mix = rng.dirichlet(np.full(len(self.estimator.classes), rng.choice(CONCENTRATIONS)))
        return mix if rng.random() < probability else None

    def _window(
        self, pool: Pool, share: float, mix: Rows | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], float]:
        """What a window of rows of a pool, and of clean ones, is summed up as, and the share that is right."""
        corrupted = int(rng.binomial(WINDOW_ROWS, share))
        sums, right = np.zeros(OF_ROWS + len(self.estimator.classes), np.int64), 0
        for part, count in ((pool, corrupted), (self.clean, WINDOW_ROWS - corrupted)):
            rows = _draw(part.labels, count, mix, rng)
            sums[:OF_ROWS] += part.signals[rows].sum(axis=0)
            sums[OF_ROWS:] += np.bincount(part.predicted[rows], minlength=len(self.estimator.classes))
            right += int((part.predicted[rows] == part.labels[rows]).sum())
        return sums, right / WINDOW_ROWS


def measure(
    predict: Callable[[Images], Predictions],
    images: Images,
    reference: Reference,
    typicality: Typicality,
    *,
    rows: int = POOL_ROWS,
    seed: int = 0,
) -> Pools:
    """Corrupt held-out pictures in every way and strength, and measure what becomes of the predictions.

    Args:
        predict: the model.
        images: (N, H, W) or (N, H, W, C) uint8, the held-out images of the rows of `reference`.
        reference: predictions of the images as they are.
        typicality: of the reference.
        rows: images under each corruption and strength; at most N.
        seed: of the sampling, the corruptions and the windows.
    """
    rng = np.random.default_rng(seed)
    estimator = without_rule(reference, typicality)
    rows = min(rows, len(images))

    def pool(kind: str, found: Predictions, labels: NDArray[np.int64]) -> Pool:
        return Pool(kind, estimator.signals(found), found.labels, labels)

    corrupted = []
    for kind in sorted(CORRUPTIONS):
        for amount in AMOUNTS:
            chosen = rng.choice(len(images), rows, replace=False)
            changed = corrupt(images[chosen], kind, amount, seed=int(rng.integers(2**31)))
            corrupted.append(pool(kind, predict(changed), reference.labels[chosen]))
    return Pools(estimator, pool("", reference.predictions, reference.labels), tuple(corrupted), seed)


def without_rule(reference: Reference, typicality: Typicality) -> AccuracyEstimator:
    """An estimator that finds the signals of rows and draws nothing from them.

    Args:
        reference: held-out rows.
        typicality: of the reference.
    """
    predictions = reference.predictions
    accuracy = float((predictions.labels == reference.labels).mean())
    embeddings = Typicality.fit(reference, statistics=False)
    counts = np.bincount(predictions.labels, minlength=predictions.probabilities.shape[1])
    estimator = AccuracyEstimator(
        pictures=typicality.classes,
        embeddings=embeddings.classes,
        bounds=np.stack([each.distances_beyond(BEYOND) for each in (embeddings, typicality)]),
        unsure=float(np.quantile(predictions.confidences, 1 - accuracy)),
        accuracy=accuracy,
        usual=np.zeros(OF_ROWS),
        classes=counts / counts.sum(),
        rule=Linear(np.zeros(OF_ROWS + 1)),
        error=0.0,
    )
    usual = means(estimator.sums(predictions))
    usual[UNITS == 1] = [1 - accuracy, *BEYOND, *BEYOND]  # of rows that the Gaussians were not fitted to
    return dataclasses.replace(estimator, usual=usual)


def _draw(labels: NDArray[np.int64], count: int, mix: Rows | None, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows, with replacement, so that their classes have the shares of a mix, as far as there are rows of them."""
    if mix is None or not (weights := mix[labels]).any():
        return rng.integers(len(labels), size=count)
    weights = weights / np.bincount(labels, minlength=len(mix))[labels]
    return rng.choice(len(labels), count, p=weights / weights.sum())


def _folds(kinds: NDArray[np.str_], seed: int) -> NDArray[np.int64]:
    """(W,) the part that each window is held out in: all of a kind in one, those without corruption in any."""
    rng = np.random.default_rng(seed)
    names = np.unique(kinds)
    of_kind = dict(zip(names, rng.permutation(len(names)) % FOLDS, strict=True))
    anywhere = rng.integers(FOLDS, size=len(kinds))
    return np.where(kinds == "", anywhere, [of_kind[kind] for kind in kinds])


def _trees(changes: Rows, falls: Rows, seed: int) -> Trees:
    """Boosted regression trees. Errors are weighted as if they grow with the fall, so that windows far above the bound
    of harm do not decide what is near it, and large ones count less than their squares."""
    from sklearn.ensemble import GradientBoostingRegressor

    fitted = GradientBoostingRegressor(loss="huber", alpha=0.95, random_state=seed, **TREES)
    fitted.fit(changes, falls, sample_weight=1 / (FLOOR + np.abs(falls)))
    trees = [each.tree_ for each in fitted.estimators_[:, 0]]
    nodes = max(tree.node_count for tree in trees)
    found = Trees(
        columns=np.full((len(trees), nodes), LEAF, np.int16),
        thresholds=np.zeros((len(trees), nodes), np.float32),
        children=np.zeros((len(trees), nodes, 2), np.int16),
        values=np.zeros((len(trees), nodes), np.float32),
    )
    for number, tree in enumerate(trees):
        inner = tree.children_left >= 0
        found.columns[number, : tree.node_count] = np.where(inner, tree.feature, LEAF)
        found.thresholds[number, : tree.node_count] = tree.threshold
        found.children[number, : tree.node_count] = np.stack([tree.children_left, tree.children_right], axis=1)
        found.values[number, : tree.node_count] = TREES["learning_rate"] * tree.value[:, 0, 0]
    return found
