"""Streams of labels on the answers of a champion and a canary, looked at after each label."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.metrics import sequential
from fashion.metrics.sequential import Rules

Labels = Callable[[int, int, np.random.Generator], tuple[NDArray[np.bool_], NDArray[np.bool_]]]
"""(number of the label, streams, generator) -> of each stream, whether it is the canary's, and whether right."""
Test = Callable[[NDArray[Any], Rules], tuple[NDArray[np.bool_], NDArray[np.bool_]]]
"""((4, streams) counts, rules) -> for each stream, whether it promotes, and whether it steps back."""


@dataclass(frozen=True)
class Decided:
    """What became of some streams."""

    decision: NDArray[np.int64]
    """(streams,) 1 promoted, -1 stepped back, 0 neither until the last label."""
    labels: NDArray[np.int64]
    """(streams,) until the decision; all labels without one."""

    @property
    def promoted(self) -> float:
        """Share of the streams."""
        return float((self.decision > 0).mean())

    @property
    def stepped_back(self) -> float:
        """Share of the streams."""
        return float((self.decision < 0).mean())


def accuracies(champion: float, canary: float, share: float, *, later: float = 0.0, after: int = 0) -> Labels:
    """Labels that are independent of each other.

    Args:
        champion: share of its answers that are right.
        canary: likewise.
        share: of the labels that are on the canary's answers.
        later: what both accuracies change by.
        after: how many labels.
    """

    def label(number: int, streams: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        is_canarys = rng.random(streams) < share
        change = later if after and number >= after else 0.0
        return is_canarys, rng.random(streams) < np.where(is_canarys, canary, champion) + change

    return label


def clients(accuracy: float, spread: float, each: int, share: float) -> Labels:
    """Labels of clients, each of which sends several pictures in a row and has an accuracy of its own.

    Args:
        accuracy: mean of all clients, for either version.
        spread: standard deviation of the clients' accuracies.
        each: labels of a client.
        share: of the clients that the canary answers.
    """
    precision = accuracy * (1 - accuracy) / spread**2 - 1
    now: dict[str, NDArray[Any]] = {}

    def label(number: int, streams: int, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        if number % each == 0:
            now["canary"] = rng.random(streams) < share
            now["accuracy"] = rng.beta(accuracy * precision, (1 - accuracy) * precision, streams)
        return now["canary"], rng.random(streams) < now["accuracy"]

    return label


def anytime(counts: NDArray[Any], rules: Rules) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Decide as `fashion.metrics.sequential.judge` does, for many streams at once."""
    canary, champion, alpha = counts[:2], counts[2:], 1 - rules.confidence
    return _reaches(canary, champion, -rules.margin, alpha), _reaches(canary[::-1], champion[::-1], 0.0, alpha, False)


def fixed(counts: NDArray[Any], rules: Rules) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Decide by the usual interval of a difference, which holds for one look."""
    from scipy import stats

    right, wrong, other_right, other_wrong = counts
    n1, n0 = right + wrong, other_right + other_wrong
    with np.errstate(divide="ignore", invalid="ignore"):
        p1, p0 = right / n1, other_right / n0
        error = stats.norm.ppf(rules.confidence) * np.sqrt(p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0)
        is_known = (np.minimum(n1, n0) >= 30) & (error > 0)
        return is_known & (p1 - p0 - error > -rules.margin), is_known & (p1 - p0 + error < 0)


def decide(label: Labels, rules: Rules, *, streams: int, labels: int, seed: int, test: Test = anytime) -> Decided:
    """Look at each stream after each label, until it is decided.

    Args:
        label: makes the labels.
        rules: of the decision.
        streams: how many.
        labels: of each, at most.
        seed: of the labels.
        test: decides.
    """
    rng = np.random.default_rng(seed)
    counts = np.zeros((4, streams))
    decision, when = np.zeros(streams, np.int64), np.full(streams, labels)
    for number in range(labels):
        is_canarys, is_right = label(number, streams, rng)
        counts[np.where(is_canarys, 0, 2) + ~is_right, np.arange(streams)] += 1
        open_ones = np.flatnonzero(decision == 0)
        promotes, steps_back = test(counts[:, open_ones], rules)
        decision[open_ones] = np.where(steps_back, -1, promotes)
        when[open_ones[promotes | steps_back]] = number + 1
        if decision.all():
            break
    return Decided(decision, when)


def _reaches(
    canary: NDArray[Any], champion: NDArray[Any], difference: float, alpha: float, above: bool = True
) -> NDArray[np.bool_]:
    """Whether the evidence against "at most this difference" suffices; counts are swapped for the other direction.

    The exact evidence takes a search for the likeliest pair of accuracies. It is no larger than the ratio of the
    greatest likelihood of all to that of any pair that is allowed, so it is computed where one such pair leaves it
    possible.
    """
    evidence = sequential.log_evidence if above else _counterevidence
    (r1, w1), (r0, w0) = canary, champion
    n1, n0 = r1 + w1, r0 + w0
    near = np.clip((r1 + r0 - difference * n1) / np.maximum(n1 + n0, 1), max(0, -difference), min(1, 1 - difference))
    likelihood = sequential._log_likelihood
    greatest = likelihood(r1, w1, r1 / np.maximum(n1, 1)) + likelihood(r0, w0, r0 / np.maximum(n0, 1))
    likely = likelihood(r1, w1, near + difference) + likelihood(r0, w0, near)
    found = greatest - likely >= -np.log(alpha)
    rows = np.flatnonzero(found)
    if len(rows):
        found[rows] = evidence(tuple(canary[:, rows]), tuple(champion[:, rows]), difference) >= -np.log(alpha)
    return np.asarray(found)


def _counterevidence(canary: tuple[Any, Any], champion: tuple[Any, Any], difference: float) -> NDArray[np.float64]:
    return sequential.log_counterevidence(canary[::-1], champion[::-1], -difference)
