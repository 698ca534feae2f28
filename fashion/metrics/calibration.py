"""Measure the calibration of probabilities, and improve it with one temperature.

Knows logits, probabilities and labels, not the network or the split that they come from.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_BOUNDS = (0.05, 20.0)
"""Range that `fit_temperature` searches. The lower end is reached only if every row is correct: the likelihood then
keeps growing as the temperature falls."""


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Predictions binned by confidence (the largest probability) into M bins of equal width."""

    edges: NDArray[np.float64]
    """`(M + 1,)` from 0 to 1; bin i holds confidences in (edges[i], edges[i + 1]]."""
    counts: NDArray[np.int64]
    """`(M,)` number of predictions."""
    confidence: NDArray[np.float64]
    """`(M,)` mean confidence; NaN where the bin is empty."""
    accuracy: NDArray[np.float64]
    """`(M,)` share of correct predictions; NaN where the bin is empty."""


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Turn logits `(N, C)` into probabilities `(N, C)`; a temperature below 1 sharpens them, above 1 softens them.

    Raises:
        ValueError: the logits are empty or not finite, or the temperature is not positive and finite.
    """
    logits = _check_scores("logits", logits)
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    # `logits` is a copy: the service calls this for each request, and each array more takes as long as its arithmetic.
    logits /= temperature
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return logits


def reliability_bins(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], num_bins: int = 15
) -> ReliabilityBins:
    """Bin predictions by confidence, as in Guo et al. 2017.

    Args:
        probabilities: `(N, C)`, each row sums to 1.
        labels: `(N,)` true classes.
        num_bins: number of bins of equal width, at least 1.

    Raises:
        ValueError: the rows are not probabilities, or the labels do not match them.
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    probabilities, labels = _check_probabilities(probabilities, labels)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    # The last bin also holds a confidence of 1.0000001, which float32 can give.
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(index, minlength=num_bins).astype(np.int64)
    divisors = np.where(counts > 0, counts, np.nan)
    return ReliabilityBins(
        edges=edges,
        counts=counts,
        confidence=np.bincount(index, weights=confidence, minlength=num_bins) / divisors,
        accuracy=np.bincount(index, weights=correct, minlength=num_bins) / divisors,
    )


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], num_bins: int = 15
) -> float:
    """Compute the mean distance between confidence and accuracy over bins, weighted by count, in [0, 1].

    Top-label ECE (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). Biased upwards on few
    rows: compare only values of the same N and num_bins.

    Args:
        probabilities: `(N, C)`, each row sums to 1.
        labels: `(N,)` true classes.
        num_bins: number of bins of equal width, at least 1.

    Raises:
        ValueError: the rows are not probabilities, or the labels do not match them.
    """
    bins = reliability_bins(probabilities, labels, num_bins)
    gaps = np.nan_to_num(np.abs(bins.accuracy - bins.confidence))
    return float(np.average(gaps, weights=bins.counts))


def brier_score(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """Compute the mean squared distance between the probabilities `(N, C)` and the one-hot labels, in [0, 2].

    Raises:
        ValueError: the rows are not probabilities, or the labels do not match them.
    """
    probabilities, labels = _check_probabilities(probabilities, labels)
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(np.sum((probabilities - one_hot) ** 2, axis=1)))


def negative_log_likelihood(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """Compute the mean of -ln(probability of the true class), in nats.

    Probabilities are clipped at 2.2e-16, as in scikit-learn's log_loss in float64, so that a softmax that
    underflows does not make the mean infinite.

    Raises:
        ValueError: the rows are not probabilities, or the labels do not match them.
    """
    probabilities, labels = _check_probabilities(probabilities, labels)
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.clip(true, np.finfo(np.float64).eps, 1.0))))


def fit_temperature(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], *, prior: float = 0.0
) -> float:
    """Find the temperature that minimises the negative log-likelihood of the labels (Guo et al. 2017).

    It is below 1 for an underconfident network, such as one trained with label smoothing, and never changes the
    predicted label. Fit it on rows that the network was not trained on.

    Args:
        logits: `(N, C)` outputs of the network.
        labels: `(N,)` true classes.
        prior: how much a temperature far from 1 costs: this times the square of its logarithm is added to the sum of
            the rows' losses. It decides where there are few rows, which may all be right, and counts for nothing where
            there are thousands.

    Raises:
        ValueError: the logits are empty or not finite, or the labels do not match them.
    """
    from scipy import optimize  # not at the top: the service imports this module and has no scipy

    logits = _check_scores("logits", logits)
    labels = _check_labels(labels, logits.shape)
    margins = logits - logits[np.arange(len(labels)), labels][:, None]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(np.logaddexp.reduce(margins * scale, axis=1)) + prior * log_temperature**2 / len(labels))

    # Convex in 1 / temperature, hence a single minimum in its logarithm too.
    result = optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURE_BOUNDS), method="bounded")
    return float(np.exp(result.x))


def _check_scores(name: str, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must be (N, C) and not empty, got shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{name} has {np.sum(~np.isfinite(scores))} values that are NaN or infinite")
    return scores.astype(np.float64)


def _check_labels(labels: NDArray[np.integer[Any]], shape: tuple[int, ...]) -> NDArray[np.integer[Any]]:
    labels = np.asarray(labels)
    if labels.shape != shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be ({shape[0]},) integers, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= shape[1]:
        raise ValueError(f"labels must be in [0, {shape[1]}), got {labels.min()} to {labels.max()}")
    return labels


def _check_probabilities(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.integer[Any]]]:
    scores = _check_scores("probabilities", probabilities)
    # float16 rows, as logs store them, sum to 1 within about 5e-3.
    if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > 1e-2:
        raise ValueError(
            f"probabilities must be at least 0 and sum to 1 in each row, got a minimum of {scores.min():.3g} "
            f"and sums from {scores.sum(axis=1).min():.3g} to {scores.sum(axis=1).max():.3g}"
        )
    return scores, _check_labels(labels, scores.shape)
