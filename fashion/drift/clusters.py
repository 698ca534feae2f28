"""How many independent rows a window is worth, where clients send pictures that are like each other.

Tests take their rows for independent, and fifty shoes of one client are closer to one row than to fifty. So clients
are the sample: each is weighed by how like each other a client's rows are, and the spread between clients says how
many independent rows a column is worth, its effective sample size (Rao and Scott, "On chi-squared tests for multiway
contingency tables with cell proportions estimated from survey data", Annals of Statistics 1984). The spread is
corrected for few and for large clients (Bell and McCaffrey, "Bias reduction in standard errors for linear regression
with multi-stage samples", Survey Methodology 2002). Knows arrays, no logs.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
CUTS = np.linspace(0, 1, 18)[1:-1]
"""Quantiles of a column at which the spread of its distribution is estimated."""
ALIKE = 0.01
"""p-value of clients that do not differ below which they do, corrected for the number of columns."""
MIN_FREEDOM = 9
"""Clients of equal size, less one, from which on the spread between them can be estimated: with fewer, tests were wrong
too often (benchmark drift_power)."""


@dataclass(frozen=True, eq=False)
class Worth:
    """What a column's rows are worth to its test."""

    weights: Floats | None
    """(N,) of the rows, sum 1; None where all are equal."""
    rows: float
    """Independent rows that are worth as much; at most as many as there are."""
    freedom: float = np.inf
    """Degrees of freedom by which that is known: about the number of clients less one; infinite where no estimate was
    needed."""
    dimensions: float = np.inf
    """Of classes: in how many independent directions their shares spread, at most the number of classes less one."""

    @property
    def is_testable(self) -> bool:
        """False if a few clients that differ from each other sent the rows."""
        return self.freedom >= MIN_FREEDOM

    def at_most(self, rows: float) -> "Worth":
        """The same, worth no more than so many independent rows."""
        return dataclasses.replace(self, rows=min(self.rows, rows))


class ColumnShares(NamedTuple):
    """Shares of a column's rows, by which its clients are compared: below each cut, or in each class."""

    means: Floats
    """(G, Q) of each client."""
    shares: Floats
    """(Q,) of all rows."""
    is_classes: bool

    @property
    def varies(self) -> NDArray[np.bool_]:
        """(Q,) True where some rows are below the cut, or of the class, and some are not."""
        return (self.shares > 0) & (self.shares < 1)


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
        _, self._owners, sizes = np.unique(owners, return_inverse=True, return_counts=True)
        self.rows, self._sizes = len(clients), sizes.astype(np.float64)

    def worth(self, columns: Sequence[NDArray[Any]], labels: NDArray[np.int64]) -> list[Worth]:
        """What the rows are worth to the tests of some columns, and, last, to that of their classes.

        Args:
            columns: (N,) values each, of which the distribution is tested.
            labels: (N,) classes, of which the shares are tested.
        """
        if len(self._sizes) in (1, self.rows):  # one client, which can be compared with none; or a row each
            return [Worth(None, self.rows)] * (len(columns) + 1)
        indicated = [self._column(values[:, None] <= np.unique(np.quantile(values, CUTS))) for values in columns]
        indicated.append(self._column(labels[:, None] == np.unique(labels), is_classes=True))
        correlations, p_values = zip(*map(self._correlation, indicated), strict=True)
        alike = min(p_values) * len(p_values) >= ALIKE
        # One value in all rows says nothing about its clients: they are taken for as like as in the worst other column.
        worst = max(correlations)
        return [
            self._worth(column, own if column.varies.any() else worst, alike=alike)
            for column, own in zip(indicated, correlations, strict=True)
        ]

    def _column(self, indicators: NDArray[np.bool_], *, is_classes: bool = False) -> ColumnShares:
        sums = np.stack([np.bincount(self._owners, each, len(self._sizes)) for each in indicators.T], axis=1)
        return ColumnShares(sums / self._sizes[:, None], indicators.mean(axis=0), is_classes)

    def _correlation(self, column: ColumnShares) -> tuple[float, float]:
        """Correlation of a client's rows, in [0, 1], and a p-value of there being none.

        Both from how far the clients with several rows are from all rows, in units of what independence would give.
        """
        several = self._sizes > 1
        sizes, varies = self._sizes[several], column.varies
        if not varies.any():
            return 0.0, 1.0
        shares = column.shares[varies]
        distances = np.square(column.means[several][:, varies] - shares) * (sizes / (1 - sizes / self.rows))[:, None]
        if column.is_classes:  # Pearson's statistic of each client
            freedom = max(1, len(shares) - 1)
            ratios = (distances / shares).sum(axis=1) / freedom
        else:
            freedom, ratios = 1, (distances / (shares * (1 - shares))).mean(axis=1)
        correlation = float((ratios - 1).sum() / (sizes - 1).sum())
        # The cuts of a column go together: the mean of their statistics is spread at most as far as one of them.
        return min(1.0, max(0.0, correlation)), float(stats.chi2.sf(freedom * ratios.sum(), freedom * len(sizes)))

    def _worth(self, column: ColumnShares, correlation: float, *, alike: bool) -> Worth:
        """Weigh the clients, and estimate the spread between them."""
        weights = self._sizes / (1 + (self._sizes - 1) * (0.0 if alike else correlation))
        weights /= weights.sum()
        spreads = np.square(weights) * (1 + (self._sizes - 1) * correlation) / self._sizes
        freedom = float(spreads.sum() ** 2 / np.square(spreads).sum()) - 1
        if alike and freedom < MIN_FREEDOM:
            return Worth(None, self.rows)
        own = (weights / self._sizes)[self._owners]
        if not column.varies.any():  # there is no spread to estimate: it is known from the weights alone
            return Worth(own, self._at_most(1 / spreads.sum()), freedom, 1.0)
        shares = weights @ column.means
        distances = weights[:, None] * (column.means - shares) / np.sqrt(1 - weights)[:, None]
        usual, between = shares * (1 - shares) * self.rows / (self.rows - 1), np.square(distances).sum(axis=0)
        if not column.is_classes:  # the distance of two distributions is governed by where their spread is largest
            return Worth(own, self._at_most(usual.max() / max(between.max(), 1e-12)), freedom)
        # Rao and Scott's corrections: the mean of the design effects, and how far they are from equal.
        present = shares > 0
        scaled = distances[:, present] / np.sqrt(shares[present])
        total = max(float(np.square(scaled).sum()), 1e-12)
        rows = self._at_most((usual[present] / shares[present]).sum() / total)
        return Worth(own, rows, freedom, _dimensions(scaled.T @ scaled, freedom))

    def _at_most(self, rows: float) -> float:
        return min(float(self.rows), float(rows))


def _dimensions(covariance: Floats, freedom: float) -> float:
    """Satterthwaite's tr(V)^2 / tr(V^2), where V is estimated by a covariance with few degrees of freedom."""
    squared, most = float(np.trace(covariance)) ** 2, len(covariance) - 1
    # The estimate's own noise makes it look less even than V is: that of a Wishart matrix is taken off.
    noise = float(np.square(covariance).sum()) - squared / freedom
    of_square = noise * freedom**2 / ((freedom - 1) * (freedom + 2)) if freedom > 1 else squared
    return max(1.0, min(float(most), squared / max(of_square, 1e-300)))


def widen(p_value: float, freedom: float) -> float:
    """A p-value of the normal distribution, made that of Student's t: the spread was estimated from few clients."""
    if not np.isfinite(freedom) or p_value <= 0:
        return p_value
    return float(2 * stats.t.sf(stats.norm.isf(p_value / 2), freedom))
