"""How many independent rows a window is worth, where clients send pictures that are like each other.

Tests take their rows for independent, and fifty shoes of one client are closer to one row than to fifty. So clients
are taken for the sample: each column's clients are weighed by how alike their own rows are, and the spread between
clients says how many independent rows the column is worth, its effective sample size (Rao and Scott, "On chi-squared
tests for multiway contingency tables with cell proportions estimated from survey data", Annals of Statistics 1984).
Spreads are corrected for few or large clients as in Bell and McCaffrey, "Bias reduction in standard errors for linear
regression with multi-stage samples", Survey Methodology 2002. Knows arrays, no logs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
CUTS = np.linspace(0, 1, 18)[1:-1]
"""Quantiles of a column at which the spread of its distribution is estimated."""
ALIKE = 0.05
"""p-value of an analysis of variance from which on clients count as alike: each of their rows counts fully."""
MIN_FREEDOM = 9
"""Clients, less one, from which on the spread between them can be estimated: of fewer the tests were wrong too often
(benchmark drift_power)."""


@dataclass(frozen=True, eq=False)
class Worth:
    """What a column's rows are worth."""

    weights: Floats | None
    """(N,) of the rows, sum 1; None where all are equal."""
    rows: float
    """Independent rows that are worth as much; at most as many as there are."""
    freedom: float = np.inf
    """Degrees of freedom by which that is known: about the number of clients less one; infinite where no estimate was
    needed."""

    @property
    def is_testable(self) -> bool:
        """False if a few clients that differ from each other sent the rows."""
        return self.freedom >= MIN_FREEDOM


class Clusters:
    """N rows by client; a row without a client is a client of its own."""

    def __init__(self, clients: NDArray[Any]) -> None:
        """
        Args:
            clients: (N,) text, empty where a row has none.
        """
        names, owners = np.unique(clients, return_inverse=True)
        alone = np.flatnonzero(clients == "")
        owners[alone] = len(names) + np.arange(len(alone))
        _, self._owners, self._sizes = np.unique(owners, return_inverse=True, return_counts=True)
        self.rows = len(clients)
        self.has_repeats = bool(self._sizes.max(initial=0) > 1) and len(self._sizes) > 1

    def of_column(self, values: NDArray[Any]) -> Worth:
        """What rows with (N,) values are worth to the test of their empirical distribution."""
        if not self.has_repeats:
            return Worth(None, self.rows)
        cuts = np.unique(np.quantile(values, CUTS))
        # The distance of two distributions is governed by where their spread is largest.
        return self._worth(values[:, None] <= cuts, lambda spreads, shares: float(spreads.max()))

    def of_classes(self, labels: NDArray[np.int64]) -> Worth:
        """What rows with (N,) classes are worth to the test of the classes' shares."""
        if not self.has_repeats:
            return Worth(None, self.rows)
        # Rao and Scott's first correction: the mean of the classes' design effects.
        return self._worth(
            labels[:, None] == np.unique(labels), lambda spreads, shares: float((spreads / shares).sum())
        )

    def _worth(self, indicators: NDArray[np.bool_], total: Callable[[Floats, Floats], float]) -> Worth:
        """Weigh the clients, and estimate the spread between them.

        Args:
            indicators: (N, Q) whose shares are tested.
            total: makes one number of (Q,) spreads and shares.
        """
        clients, sizes = len(self._sizes), self._sizes.astype(np.float64)
        sums = np.stack([np.bincount(self._owners, column, clients) for column in indicators.T], axis=1)
        means: Floats = sums / sizes[:, None]
        correlation, p_value = self._correlation(means, indicators.mean(axis=0))
        weights = sizes / (1 + (sizes - 1) * (correlation if p_value < ALIKE else 0.0))
        weights /= weights.sum()
        shares = np.clip(weights @ means, 1e-12, 1 - 1e-12)
        between = np.square(weights[:, None] * (means - shares)) / (1 - weights)[:, None]
        usual = shares * (1 - shares) * self.rows / (self.rows - 1)
        rows = min(float(self.rows), total(usual, shares) / max(total(between.sum(axis=0), shares), 1e-12))
        spreads = np.square(weights) * (1 + (sizes - 1) * correlation) / sizes
        freedom = float(spreads.sum() ** 2 / np.square(spreads).sum()) - 1
        if p_value >= ALIKE and freedom < MIN_FREEDOM:
            return Worth(None, self.rows)
        return Worth((weights / sizes)[self._owners], rows, freedom)

    def _correlation(self, means: Floats, shares: Floats) -> tuple[float, float]:
        """Correlation of a client's rows, in [0, 1], and the p-value of there being none: analysis of variance.

        Args:
            means: (G, Q) of each client.
            shares: (Q,) of all rows.
        """
        clients, rows, sizes = len(self._sizes), self.rows, self._sizes.astype(np.float64)
        between = float((sizes[:, None] * np.square(means - shares)).sum()) / (clients - 1)
        within = float((sizes[:, None] * means * (1 - means)).sum()) / (rows - clients)
        if between <= 0:
            return 0.0, 1.0
        usual = (rows - float(np.square(sizes).sum()) / rows) / (clients - 1)
        correlation = (between - within) / (between + (usual - 1) * within)
        p_value = 0.0 if within <= 0 else float(stats.f.sf(between / within, clients - 1, rows - clients))
        return min(1.0, max(0.0, correlation)), p_value


def widen(p_value: float, freedom: float) -> float:
    """A p-value of the normal distribution, made that of Student's t: the spread was estimated from few clients."""
    if not np.isfinite(freedom) or p_value <= 0:
        return p_value
    return float(2 * stats.t.sf(stats.norm.isf(p_value / 2), freedom))
