"""Compare rows with a model's reference: a test for each column, in three families that share the error rate alpha.

Kolmogorov-Smirnov tests of the image statistics, the same of the class probabilities, and a chi-square test of the
predicted labels. Each family has an equal share of alpha, divided among its columns (Bonferroni), so that rows without
drift are called drift at most that often. Knows arrays, no windows.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.drift.clusters import Clusters
from fashion.drift.distinct import Rows
from fashion.drift.reference_stats import ReferenceStats, chi_square_test, ks_distance, ks_test
from fashion.drift.result import FAMILIES, Column

MIN_WORTH = 50
"""Independent rows below which a column that does not differ shows nothing: fewer cannot show drift."""


class Comparison(NamedTuple):
    """Every test of some rows."""

    columns: tuple[Column, ...]
    """Those of too few clients, which differ from each other, have no p-value (NaN)."""
    worth: float
    """Independent rows of the column that is worth least."""

    @property
    def drifted(self) -> list[Column]:
        """Columns whose p-value is below their threshold."""
        return [column for column in self.columns if column.drifted]

    @property
    def is_conclusive(self) -> bool:
        """True if something differs, or if there were enough independent rows to tell that nothing does."""
        return bool(self.drifted) or self.worth >= MIN_WORTH


def compare(rows: Rows, reference: ReferenceStats, alpha: float) -> Comparison:
    """Test every column.

    Args:
        rows: at least one, with the reference's classes.
        reference: what they are compared with.
        alpha: share of the rows without drift that may be called drift.
    """
    labels, matrix = rows.predictions.labels, _matrix(rows)
    *worths, of_labels = Clusters(rows.origins.clients).worth(list(matrix.T), labels)
    # A class that no client sent shows in no spread of its probability: that of the labels stands for it.
    is_output = [column.family == FAMILIES[1] for column in reference.columns]
    worths = [each.at_most(of_labels.rows) if output else each for each, output in zip(worths, is_output, strict=True)]
    columns = []
    for column, values, worth in zip(reference.columns, matrix.T, worths, strict=True):
        distance = ks_distance(column, values, worth.weights)
        columns.append(ks_test(column, distance, worth, reference.rows, reference.threshold(column.family, alpha)))
    shares = np.bincount(labels, of_labels.weights, minlength=len(reference.label_counts))
    threshold = reference.threshold(FAMILIES[2], alpha)
    columns.append(chi_square_test(shares, reference.label_counts, threshold, of_labels))
    return Comparison(tuple(columns), min(each.rows if each.is_testable else 0 for each in [*worths, of_labels]))


def _matrix(rows: Rows) -> NDArray[np.float32]:
    return np.concatenate([rows.predictions.statistics, rows.predictions.probabilities], axis=1)


def family_p_values(columns: Sequence[Column]) -> dict[str, float]:
    """The smallest p-value of each family, corrected for the number of its columns; NaN if none could be tested."""
    p_values = {}
    for family in FAMILIES:
        of_family = [column.p_value for column in columns if column.family == family]
        tested = [p_value for p_value in of_family if not np.isnan(p_value)]
        p_values[family] = min(1.0, len(of_family) * min(tested)) if tested else math.nan
    return p_values
