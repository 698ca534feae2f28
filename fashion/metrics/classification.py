"""Score predicted labels: intervals, confusion matrix, per-class scores, and two classifiers on the same rows.

Knows labels and predictions, not probabilities (see `calibration`), and not where they come from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class. A ratio of zero to zero is 0, as with scikit-learn's zero_division=0."""

    name: str
    precision: float
    """Share of the images predicted as this class that are of it; 0 if none is predicted."""
    recall: float
    """Share of the images of this class that are predicted as it; 0 if there are none."""
    f1: float
    """Harmonic mean of precision and recall; 0 if both are 0."""
    support: int
    """Number of images of this class."""


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test on the rows where exactly one of champion and challenger is correct.

    If b = c = 0, the two never differ and every p-value is 1.
    """

    b: int
    """Number of rows that only the champion predicts correctly."""
    c: int
    """Number of rows that only the challenger predicts correctly."""
    p_value: float
    """Two-sided: small if the two differ in either direction."""
    p_worse: float
    """One-sided: small if the challenger is worse than the champion (b larger than by chance)."""
    p_better: float
    """One-sided: small if the challenger is better than the champion (c larger than by chance)."""


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Compute Wilson's score interval of a proportion.

    Unlike the normal approximation, it does not collapse at 0 or 1 (Wilson, JASA 22, 1927; Brown, Cai and
    DasGupta, Statistical Science 16, 2001).

    Args:
        successes: number of successes, in [0, total].
        total: number of trials, at least 1.
        confidence: coverage of the interval, in (0, 1).

    Returns:
        The ends (low, high) in [0, 1]; the interval always contains successes / total.

    Raises:
        ValueError: an argument is out of its range.
    """
    if total <= 0:
        raise ValueError(f"total must be positive, got {total}")
    if not 0 <= successes <= total:
        raise ValueError(f"successes must be in [0, {total}], got {successes}")
    _check_confidence(confidence)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / total
    shrink = 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / shrink
    half_width = z / shrink * float(np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)))
    # Rounding can put an end 1e-17 beyond 0, 1 or the proportion itself.
    return max(0.0, min(centre - half_width, share)), min(1.0, max(centre + half_width, share))


def confusion_matrix(
    labels: NDArray[np.integer[Any]], predictions: NDArray[np.integer[Any]], num_classes: int
) -> NDArray[np.int64]:
    """Count images by true and predicted class.

    Args:
        labels: `(N,)` true classes.
        predictions: `(N,)` predicted classes.
        num_classes: C, the number of classes.

    Returns:
        `(C, C)` int64: row i, column j is the number of images of class i that are predicted as class j.

    Raises:
        ValueError: the arrays are empty or differ in length, or a class is outside [0, num_classes).
    """
    labels, predictions = _check_pair(labels, predictions)
    _check_range("labels", labels, num_classes)
    _check_range("predictions", predictions, num_classes)
    cells = labels.astype(np.int64) * num_classes + predictions.astype(np.int64)
    return np.bincount(cells, minlength=num_classes**2).astype(np.int64).reshape(num_classes, num_classes)


def classification_report(
    labels: NDArray[np.integer[Any]], predictions: NDArray[np.integer[Any]], class_names: Sequence[str]
) -> list[ClassScore]:
    """Compute precision, recall and F1 of each class.

    Args:
        labels: `(N,)` true classes.
        predictions: `(N,)` predicted classes.
        class_names: the names of the classes, which labels and predictions index.

    Returns:
        The scores in the order of `class_names`.

    Raises:
        ValueError: as for `confusion_matrix`.
    """
    matrix = confusion_matrix(labels, predictions, len(class_names))
    correct, predicted, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return [
        ClassScore(
            name=name,
            precision=_ratio(correct[i], predicted[i]),
            recall=_ratio(correct[i], support[i]),
            f1=_ratio(2 * correct[i], predicted[i] + support[i]),
            support=int(support[i]),
        )
        for i, name in enumerate(class_names)
    ]


def mcnemar_exact(champion_correct: NDArray[np.bool_], challenger_correct: NDArray[np.bool_]) -> McNemar:
    """Compare two classifiers on the same rows by an exact McNemar test.

    An exact binomial test of b in b + c fair coin tosses (McNemar, Psychometrika 12, 1947), valid for any counts.
    A small p_worse is evidence that the challenger is worse. A large one is no evidence that it is as good: for that,
    bound the loss with `paired_bootstrap_difference`.

    Args:
        champion_correct: `(N,)` bool, True where the champion is correct.
        challenger_correct: `(N,)` bool, True where the challenger is correct.

    Raises:
        ValueError: the arrays are empty, not boolean, or differ in length.
    """
    b, c = _discordant(champion_correct, challenger_correct)
    if b + c == 0:
        return McNemar(b=0, c=0, p_value=1.0, p_worse=1.0, p_better=1.0)
    from scipy import special  # not at the top: the service imports this module and has no scipy

    # scipy.special, because importing scipy.stats takes a second in each task of a flow.
    p_worse = float(special.bdtrc(b - 1, b + c, 0.5))
    p_better = float(special.bdtrc(c - 1, b + c, 0.5))
    return McNemar(b=b, c=c, p_value=min(1.0, 2 * min(p_worse, p_better)), p_worse=p_worse, p_better=p_better)


def paired_bootstrap_difference(
    champion_correct: NDArray[np.bool_],
    challenger_correct: NDArray[np.bool_],
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int,
) -> tuple[float, float, float]:
    """Estimate the challenger's accuracy minus the champion's, with a percentile bootstrap interval over rows.

    The challenger is not worse by more than a margin m if low > -m.

    Args:
        champion_correct: `(N,)` bool, True where the champion is correct.
        challenger_correct: `(N,)` bool, True where the challenger is correct, on the same rows.
        confidence: two-sided coverage of the interval, in (0, 1).
        num_resamples: number of bootstrap resamples, at least 1.
        seed: seed of the resampling.

    Returns:
        (difference, low, high) in [-1, 1]; positive if the challenger is better.

    Raises:
        ValueError: the arrays are empty, not boolean, or differ in length, or an argument is out of its range.
    """
    b, c = _discordant(champion_correct, challenger_correct)
    _check_confidence(confidence)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    rows = len(champion_correct)
    # A row counts -1, 0 or +1, so resampling rows is a multinomial draw of three counts: the same distribution
    # without num_resamples * N draws.
    draws = np.random.default_rng(seed).multinomial(
        rows, [b / rows, c / rows, (rows - b - c) / rows], size=num_resamples
    )
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / rows, [(1 - confidence) / 2, (1 + confidence) / 2])
    return (c - b) / rows, float(low), float(high)


def _ratio(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0


def _discordant(champion_correct: NDArray[np.bool_], challenger_correct: NDArray[np.bool_]) -> tuple[int, int]:
    champion, challenger = np.asarray(champion_correct), np.asarray(challenger_correct)
    for name, values in (("champion_correct", champion), ("challenger_correct", challenger)):
        if values.dtype != np.bool_ or values.ndim != 1:
            raise ValueError(f"{name} must be a (N,) bool array, got {values.dtype} {values.shape}")
    if champion.shape != challenger.shape:
        raise ValueError(f"champion_correct has {len(champion)} rows but challenger_correct has {len(challenger)}")
    if champion.size == 0:
        raise ValueError("champion_correct and challenger_correct are empty")
    return int(np.sum(champion & ~challenger)), int(np.sum(~champion & challenger))


def _check_pair(
    labels: NDArray[np.integer[Any]], predictions: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]:
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.size == 0:
            raise ValueError(f"{name} is empty, shape {values.shape}")
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"{name} must be a (N,) integer array, got {values.dtype} {values.shape}")
    if labels.shape != predictions.shape:
        raise ValueError(f"labels has {len(labels)} rows but predictions has {len(predictions)}")
    return labels, predictions


def _check_range(name: str, values: NDArray[np.integer[Any]], num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if values.min() < 0 or values.max() >= num_classes:
        raise ValueError(f"{name} must be in [0, {num_classes}), got {values.min()} to {values.max()}")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}")
