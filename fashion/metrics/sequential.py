"""Whether a canary is as accurate as the champion, by labels that come one by one. Knows numbers alone.

The test may be looked at after each label and be stopped at any time: whatever rule stops it, a wrong decision has at
most the probability that was configured. It is a likelihood ratio: what the labels of both arms would be worth under
every pair of accuracies (mixed by a prior, Robbins' method of mixtures, Annals of Mathematical Statistics 41, 1970),
over the most that they are worth under a pair that the null hypothesis allows. For the true pair, the ratio of mixture
and likelihood is a martingale of mean 1; the denominator is no smaller than that likelihood, so the ratio is an
e-process, and by Ville's inequality it ever reaches 1 / alpha with probability alpha at most (Wasserman, Ramdas and
Balakrishnan, "Universal inference", PNAS 117, 2020; Ramdas, Gruenwald, Vovk and Shafer, Statistical Science 38, 2023).
It holds for any order in which the arms get their labels, and for any share of the traffic.

Assumed: the labels of an arm are independent of each other, each right with the arm's accuracy. The caller counts one
label a client for that reason.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fashion.metrics.special import count_log, log_beta

PRIOR = (4.0, 1.0)
"""Beta prior of an accuracy: models that are served are right more often than not. The bound on wrong decisions holds
with any; with this one, arms that are 80 to 95 % right need about a fifth fewer labels than with a flat one."""
HALVINGS = 48
"""Of an interval of length 1, to find a maximum: no counts of labels are so large that more would matter."""

GRID = 64
REFINEMENTS = 4
"""A bound of the difference is found on as many grids, each within one step of the last: to a ten-millionth."""

Decision = Literal["promote", "step back", "go on"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """Labels of one version's answers."""

    right: int = 0
    wrong: int = 0

    @property
    def labels(self) -> int:
        """All of them."""
        return self.right + self.wrong

    @property
    def accuracy(self) -> float | None:
        """Share of right answers; None without labels."""
        return self.right / self.labels if self.labels else None


@dataclass(frozen=True)
class Rules:
    """What decides. To be fixed before the first label."""

    margin: float
    """Accuracy in [0, 1) that a canary may lose and still count as not worse."""
    confidence: float
    """One minus the probability of a wrong promotion, and of a wrong step back."""


@dataclass(frozen=True)
class Verdict:
    """What the labels say until now."""

    decision: Decision
    difference: float | None
    """Accuracy of the canary minus the champion's; None until both have labels."""
    low: float
    """The difference is at least this, with the rules' confidence at all times together."""
    high: float
    """It is at most this, likewise."""


def judge(champion: Arm, canary: Arm, rules: Rules) -> Verdict:
    """Decide by the labels so far. May be called after each.

    The canary steps back where it is shown to be less accurate than the champion. It is promoted where it is shown to
    lose less than the margin, and not shown to be less accurate, as the gate demands it of a challenger.

    Args:
        champion: its labels.
        canary: its labels.
        rules: margin and confidence.
    """
    low, high = difference_bounds(champion, canary, rules.confidence)
    accuracies = (champion.accuracy, canary.accuracy)
    difference = None if None in accuracies else canary.right / canary.labels - champion.right / champion.labels
    decision: Decision = "step back" if high < 0 else "promote" if low > -rules.margin else "go on"
    return Verdict(decision, difference, low, high)


def difference_bounds(champion: Arm, canary: Arm, confidence: float) -> tuple[float, float]:
    """Bound the canary's accuracy minus the champion's, each side with this confidence, at all times together.

    Args:
        champion: its labels.
        canary: its labels.
        confidence: in (0, 1).
    """
    counts = (canary.right, canary.wrong, champion.right, champion.wrong)
    swapped = (canary.wrong, canary.right, champion.wrong, champion.right)
    if not (champion.labels and canary.labels):
        return -1.0, 1.0
    worth, threshold = float(_log_mixture(*counts)), -np.log(1 - confidence)
    found = canary.right / canary.labels - champion.right / champion.labels

    def bound(ordered: tuple[int, int, int, int], estimate: float) -> float:
        """The least difference that is not refuted as too small."""
        low, high = -1.0, estimate
        for _ in range(REFINEMENTS):
            grid = np.linspace(low, high, GRID + 1)
            refuted = int((worth - _log_most_likely(*ordered, grid) >= threshold).sum())  # the first ones
            low, high = float(grid[max(refuted - 1, 0)]), float(grid[min(refuted, GRID)])
        return low

    return bound(counts, found), -bound(swapped, -found)


def accuracy_bounds(arm: Arm, confidence: float) -> tuple[float, float]:
    """Bound the accuracy of one arm, both sides together with this confidence, at all times together."""
    threshold = -np.log(1 - confidence)
    worth = float(_log_mixture_of_arm(arm.right, arm.wrong))

    def is_refuted(accuracy: float) -> bool:
        return bool(worth - float(_log_likelihood(arm.right, arm.wrong, accuracy)) >= threshold)

    bounds = []
    for end in (0.0, 1.0):
        outside, inside = end, arm.right / arm.labels if arm.labels else 0.5
        for _ in range(HALVINGS if is_refuted(end) else 0):
            middle = (outside + inside) / 2
            outside, inside = (middle, inside) if is_refuted(middle) else (outside, middle)
        bounds.append(outside)
    return bounds[0], bounds[1]


def log_evidence(
    canary: tuple[ArrayLike, ArrayLike], champion: tuple[ArrayLike, ArrayLike], difference: float
) -> Floats:
    """Return the logarithm of the e-process against "the canary's accuracy minus the champion's is at most this".

    Args:
        canary: right and wrong labels, numbers or arrays of any one shape.
        champion: right and wrong labels, likewise.
        difference: in [-1, 1].

    Returns:
        Of that shape; log(1 / alpha) is ever reached with probability alpha at most.
    """
    return _log_mixture(*canary, *champion) - _log_most_likely(*canary, *champion, difference)


def log_counterevidence(
    canary: tuple[ArrayLike, ArrayLike], champion: tuple[ArrayLike, ArrayLike], difference: float
) -> Floats:
    """Return the same against "the difference is at least this"."""
    worth = _log_mixture(*canary, *champion)
    return worth - _log_most_likely(canary[1], canary[0], champion[1], champion[0], -difference)


def _log_mixture(right: ArrayLike, wrong: ArrayLike, other_right: ArrayLike, other_wrong: ArrayLike) -> Floats:
    """Logarithm of the labels' probability under all pairs of accuracies, mixed by the prior."""
    mixed: Floats = _log_mixture_of_arm(right, wrong) + _log_mixture_of_arm(other_right, other_wrong)
    return mixed


def _log_mixture_of_arm(right: ArrayLike, wrong: ArrayLike) -> Floats:
    mixed: Floats = log_beta(PRIOR[0] + np.asarray(right), PRIOR[1] + np.asarray(wrong)) - log_beta(*PRIOR)
    return mixed


def _log_likelihood(right: ArrayLike, wrong: ArrayLike, accuracy: ArrayLike) -> Floats:
    accuracy = np.asarray(accuracy, np.float64)
    likelihood: Floats = count_log(right, accuracy) + count_log(wrong, 1 - accuracy)
    return likelihood


def _log_most_likely(
    right: ArrayLike, wrong: ArrayLike, other_right: ArrayLike, other_wrong: ArrayLike, difference: ArrayLike
) -> Floats:
    """Logarithm of the labels' greatest probability where the first accuracy is at most `difference` above the other.

    Unless the shares of right labels are such a pair themselves, the greatest is where the accuracies differ by exactly
    that. There the logarithm is concave in the other accuracy: its slope is halved until it is 0.
    """
    r1, w1, r0, w0 = (np.asarray(count, np.float64) for count in (right, wrong, other_right, other_wrong))
    apart = np.asarray(difference, np.float64)
    n1, n0 = np.maximum(r1 + w1, 1), np.maximum(r0 + w0, 1)
    free = _log_likelihood(r1, w1, r1 / n1) + _log_likelihood(r0, w0, r0 / n0)
    is_allowed = (r1 / n1 - r0 / n0 <= apart) | (r1 + w1 == 0) | (r0 + w0 == 0)
    shape = np.zeros(np.broadcast_shapes(r1.shape, apart.shape))
    low, high = shape + np.maximum(0.0, -apart), shape + np.minimum(1.0, 1.0 - apart)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(HALVINGS):
            p0 = (low + high) / 2
            p1 = p0 + apart
            slope = _ratio(r1, p1) - _ratio(w1, 1 - p1) + _ratio(r0, p0) - _ratio(w0, 1 - p0)
            low, high = np.where(slope > 0, p0, low), np.where(slope > 0, high, p0)
    p0 = np.clip((low + high) / 2, 0, 1)
    bound = _log_likelihood(r1, w1, np.clip(p0 + apart, 0, 1)) + _log_likelihood(r0, w0, p0)
    most: Floats = np.where(is_allowed, free, bound)
    return most


def _ratio(count: Floats, probability: Any) -> Floats:
    """`count / probability`, and 0 for no count whatever the probability."""
    ratio: Floats = np.where(count > 0, count / probability, 0.0)
    return ratio
