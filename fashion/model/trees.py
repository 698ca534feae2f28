"""Binary regression trees whose values add up, as arrays: what is computed from them. Fits none.

What a tree says of a row is shared among the columns that its nodes look at, by how much the mean value changes from
node to node: Saabas' decomposition, which adds up to the prediction.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAF = -1


@dataclass(frozen=True, eq=False)
class Trees:
    """T trees of at most M nodes each; the root is the first node."""

    columns: NDArray[np.int16]
    """(T, M) that a node looks at; `LEAF` where it looks at none."""
    thresholds: NDArray[np.float32]
    """(T, M): a row goes left where its value is at most this."""
    children: NDArray[np.int16]
    """(T, M, 2) nodes on the left and on the right."""
    values: NDArray[np.float32]
    """(T, M): the mean of the rows that a node was fitted to, and what a leaf adds."""

    def contributions(self, row: NDArray[np.floating]) -> NDArray[np.float64]:
        """What each column adds for a row, compared with the same trees for a row of zeros.

        Args:
            row: (K,)

        Returns:
            (K,); the sum is the prediction for the row less that for zeros.
        """
        return self._paths(row) - self._paths(np.zeros_like(row))

    def _paths(self, row: NDArray[np.floating]) -> NDArray[np.float64]:
        row = row.astype(np.float32)  # as it was fitted
        found = np.zeros(len(row))
        trees, nodes = np.arange(len(self.columns)), np.zeros(len(self.columns), np.int64)
        while True:
            columns = self.columns[trees, nodes]
            inner = columns != LEAF
            if not inner.any():
                return found
            trees, nodes, columns = trees[inner], nodes[inner], columns[inner]
            goes_right = (row[columns] > self.thresholds[trees, nodes]).astype(np.int64)
            below = self.children[trees, nodes, goes_right].astype(np.int64)
            np.add.at(found, columns, (self.values[trees, below] - self.values[trees, nodes]).astype(np.float64))
            nodes = below
