"""Ask whether probabilities mean what they say, and mend them with one temperature.

Knows logits, probabilities and labels, never the network or the split that they came from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_BOUNDS = (0.05, 20.0)
"""Where `fit_temperature` looks. The lower end is reached only when every row is right (the likelihood then
grows for ever as the temperature falls)."""


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Predictions binned by confidence (the largest probability) into M bins of equal width."""

    edges: NDArray[np.float64]
    """(M + 1,) from 0 to 1; bin i holds confidences in (edges[i], edges[i + 1]]."""
    counts: NDArray[np.int64]
    """(M,) number of predictions."""
    confidence: NDArray[np.float64]
    """(M,) mean confidence; NaN where the bin is empty."""
    accuracy: NDArray[np.float64]
    """(M,) share of right predictions; NaN where the bin is empty."""


def softmax(logits: NDArray[np.floating[Any]], temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C) divided by the temperature: below 1 sharper, above 1 softer."""
    logits = _checked_scores("logits", logits)
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    scaled = logits / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def reliability_bins(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], num_bins: int = 15
) -> ReliabilityBins:
    """Bin predictions by confidence. probabilities (N, C), labels (N,); bins as in Guo et al. 2017."""
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    probabilities, labels = _checked_probabilities(probabilities, labels)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, num_bins + 1)
    # The last bin also takes a float32 1.0000001.
    index = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(index, minlength=num_bins).astype(np.int64)
    held = np.where(counts > 0, counts, np.nan)
    return ReliabilityBins(
        edges=edges,
        counts=counts,
        confidence=np.bincount(index, weights=confidence, minlength=num_bins) / held,
        accuracy=np.bincount(index, weights=right, minlength=num_bins) / held,
    )


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], num_bins: int = 15
) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, weighted by count, in [0, 1].

    Top-label ECE (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). Biased upwards on few
    rows, so compare only values of the same N and num_bins.
    """
    bins = reliability_bins(probabilities, labels, num_bins)
    gaps = np.nan_to_num(np.abs(bins.accuracy - bins.confidence))
    return float(np.average(gaps, weights=bins.counts))


def brier_score(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """Mean over rows of the squared distance of the probabilities to the one-hot label, in [0, 2]."""
    probabilities, labels = _checked_probabilities(probabilities, labels)
    one_hot = np.eye(probabilities.shape[1])[labels]
    return float(np.mean(np.sum((probabilities - one_hot) ** 2, axis=1)))


def negative_log_likelihood(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """Mean of -ln(probability of the true class), in nats.

    Probabilities are floored at 2.2e-16 (as scikit-learn's log_loss does in float64), so that one softmax
    that underflowed does not make the mean infinite.
    """
    probabilities, labels = _checked_probabilities(probabilities, labels)
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.mean(np.log(np.clip(true, np.finfo(np.float64).eps, 1.0))))


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """Temperature that makes labels (N,) likeliest, given logits (N, C) divided by it.

    Minimises the negative log-likelihood (Guo et al. 2017). Fit it on rows that were not trained on. Below 1
    for an underconfident network, as label smoothing makes them; no value changes which label wins. Raises
    ValueError for empty, non-finite or mismatched input.
    """
    from scipy import optimize  # here, because the service imports softmax and has no scipy

    logits = _checked_scores("logits", logits)
    labels = _checked_labels(labels, logits.shape)
    margins = logits - logits[np.arange(len(labels)), labels][:, None]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(np.logaddexp.reduce(margins * scale, axis=1)))

    # Convex in 1 / temperature, hence a single minimum in its logarithm too.
    result = optimize.minimize_scalar(loss, bounds=np.log(TEMPERATURE_BOUNDS), method="bounded")
    return float(np.exp(result.x))


def _checked_scores(name: str, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    scores = np.asarray(scores)
    if scores.ndim != 2 or scores.size == 0:
        raise ValueError(f"{name} must be (N, C) and not empty, got shape {scores.shape}")
    if not np.all(np.isfinite(scores)):
        raise ValueError(f"{name} has {np.sum(~np.isfinite(scores))} values that are NaN or infinite")
    return scores.astype(np.float64)


def _checked_labels(labels: NDArray[np.integer[Any]], shape: tuple[int, ...]) -> NDArray[np.integer[Any]]:
    labels = np.asarray(labels)
    if labels.shape != shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be ({shape[0]},) integers, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= shape[1]:
        raise ValueError(f"labels must be in [0, {shape[1]}), got {labels.min()} to {labels.max()}")
    return labels


def _checked_probabilities(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.integer[Any]]]:
    scores = _checked_scores("probabilities", probabilities)
    # float16 rows, as logs store them, sum to 1 within about 5e-3.
    if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > 1e-2:
        raise ValueError(
            f"probabilities must be at least 0 and sum to 1 in each row, got a minimum of {scores.min():.3g} "
            f"and sums from {scores.sum(axis=1).min():.3g} to {scores.sum(axis=1).max():.3g}"
        )
    return scores, _checked_labels(labels, scores.shape)
