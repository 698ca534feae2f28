"""Sets of classes that hold the true one as often as one chooses. Knows probabilities, no service and no logs.

Split conformal prediction with a quantile for each class (Vovk, "Conditional validity of inductive conformal
predictors", ACML 2012; Sadinle, Lei and Wasserman, JASA 2019, arXiv:1609.00451): of rows like the held-out ones, of
any mix of classes, the sets of coverage c hold the truth of a share c, for each true class.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.model.package import SETS, DamagedPackage, Package
from fashion.model.reference import Reference

STEPS = 1000
"""Coverage is counted in steps of 1 / STEPS."""
USUAL_COVERAGE = 0.9
"""`serve.coverage` unless configured otherwise: what is watched of a version that no DeployFlow has served."""


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """What is needed to know which classes a set holds."""

    scores: NDArray[np.float32]
    """(N,) probability of the true class of the held-out rows: by class, and descending in each."""
    ends: NDArray[np.int64]
    """(C,) where each class ends in `scores`."""

    @classmethod
    def fit(cls, reference: Reference) -> "PredictionSets":
        """Take the scores of a model's reference."""
        labels, probabilities = reference.labels, reference.predictions.probabilities
        own = probabilities[np.arange(len(labels)), labels]
        order = np.lexsort((-own, labels))
        ends = np.cumsum(np.bincount(labels, minlength=probabilities.shape[1]))
        return cls(own[order].astype(np.float32), ends)

    @classmethod
    def of(cls, package: Package) -> "PredictionSets | None":
        """Read those of a package; None where it was made before packages held them.

        Raises:
            DamagedPackage: the file is not what `to_bytes` writes.
            ValueError: the package is in no folder.
        """
        if package.folder is None:
            raise ValueError("a package must be in a folder: write or read it first")
        path = package.folder / SETS
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["scores"], arrays["ends"])
        except (KeyError, OSError, ValueError) as error:
            raise DamagedPackage(f"{path} cannot be read: {error}") from None

    def to_bytes(self) -> bytes:
        """NumPy's npz, without pickles."""
        buffer = io.BytesIO()
        np.savez(buffer, scores=self.scores, ends=self.ends)
        return buffer.getvalue()

    def thresholds(self, coverage: float) -> NDArray[np.float32]:
        """(C,) the least probability with which each class is in a set of this coverage.

        0 for a class with too few held-out rows: it is in every set.

        Args:
            coverage: in (0, 1).
        """
        found = np.zeros(len(self.ends), np.float32)
        for label, rows in enumerate(self._by_class()):
            kept = int(np.ceil(coverage * (len(rows) + 1) - 1e-9))
            if kept <= len(rows):
                found[label] = rows[kept - 1]
        return found

    def steps(self, probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) the coverage, in whole `STEPS`, that a set must be above to hold the label of each of N rows.

        Sets of coverage c hold the labels for which this is below c * STEPS, where that is a whole number.

        Args:
            probabilities: (N, C).
            labels: (N,) true classes.
        """
        found = np.empty(len(labels), np.int64)
        scores = self._by_class()
        own = probabilities[np.arange(len(labels)), labels]
        for label in np.unique(labels):
            of, rows = labels == label, scores[label]
            more_probable = np.searchsorted(-rows, -own[of], "left")
            found[of] = more_probable * STEPS // (len(rows) + 1)
        return found

    def _by_class(self) -> list[NDArray[np.float32]]:
        return np.split(self.scores, self.ends[:-1])
