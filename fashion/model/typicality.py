"""Whether a picture is like anything that a model has learnt, measured by its reference. Knows arrays, no service.

Of each class, a Gaussian of the embedding and the image statistics is fitted to the reference's rows; the distance of
a picture is that from the nearest class. Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution
Samples" (NeurIPS 2018, arXiv:1807.03888), use embeddings and one covariance for all classes; here each class has its
own, drawn towards the common one where it has few rows (Friedman, "Regularized Discriminant Analysis", JASA 1989).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.model.package import TYPICALITY, DamagedPackage, Package
from fashion.model.predictor import EMBEDDING_SIZE, Predictions
from fashion.model.reference import Reference

Rows = NDArray[np.float64]
COMMON_ROWS = 50.0
"""How many rows of its own a class needs for its covariance to count as much as that of all classes."""
RIDGE = 1e-6
"""Added to each variance, as a share of it, so that collinear columns can be inverted."""
BLOCK = 2**20
"""Numbers that are whitened at once, 8 MiB: rows times classes times columns may be many more."""
FOLDS = 5
"""The reference's own distances are measured by fits that have not seen the row."""


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """Gaussians of C classes in D columns."""

    columns: NDArray[np.int64]
    """Those of the features that vary."""
    whitening: Rows
    """(D, C D): a row times this is, for each class, a vector whose squared length is the Mahalanobis distance's."""
    offsets: Rows
    """(C D,) the classes' means after whitening."""
    log_volumes: Rows
    """(C,) logarithm of each covariance's determinant."""

    @classmethod
    def fit(cls, rows: Rows, labels: NDArray[np.int64]) -> "ClassGaussians":
        """Fit one Gaussian to each class.

        Args:
            rows: (N, D) features.
            labels: (N,) classes; one without rows has no Gaussian.
        """
        columns = np.flatnonzero(rows.std(axis=0) > 0)
        rows = rows[:, columns]
        present = np.unique(labels)
        means = np.stack([rows[labels == label].mean(axis=0) for label in present])
        centred = rows - means[np.searchsorted(present, labels)]
        common = centred.T @ centred / len(rows)
        ridge = RIDGE * np.diag(rows.var(axis=0))
        whitening, offsets, volumes = [], [], []
        for label, mean in zip(present, means, strict=True):
            own = centred[labels == label]
            covariance = (own.T @ own + COMMON_ROWS * common) / (len(own) + COMMON_ROWS) + ridge
            inverse = np.linalg.inv(np.linalg.cholesky(covariance)).T
            whitening.append(inverse)
            offsets.append(mean @ inverse)
            volumes.append(np.linalg.slogdet(covariance).logabsdet)
        return cls(columns, np.concatenate(whitening, axis=1), np.concatenate(offsets), np.array(volumes))

    def distances(self, rows: Rows) -> Rows:
        """(N,) twice the negative log-density of the nearest class, up to a constant."""
        size = max(1, BLOCK // max(1, len(self.offsets)))
        if 0 < len(rows) <= size:
            return self._distances(rows)
        nearest = np.empty(len(rows))
        for start in range(0, len(rows), size):
            nearest[start : start + size] = self._distances(rows[start : start + size])
        return nearest

    def _distances(self, rows: Rows) -> Rows:
        varying = rows if len(self.columns) == rows.shape[1] else rows[:, self.columns]
        whitened = varying @ self.whitening
        whitened -= self.offsets
        by_class = whitened.reshape(len(rows), len(self.log_volumes), len(self.columns))
        nearest: Rows = (np.einsum("ijk,ijk->ij", by_class, by_class) + self.log_volumes).min(axis=1)
        return nearest


class Typicality:
    """What is usual for one model."""

    def __init__(self, classes: ClassGaussians, usual: Rows) -> None:
        """
        Args:
            classes: Gaussians of the reference's classes.
            usual: (M,) distances of the reference's own rows, ascending.
        """
        self.classes, self._usual = classes, usual

    @classmethod
    def fit(cls, reference: Reference, *, statistics: bool = True) -> "Typicality":
        """Learn what is usual from a model's reference of at least `FOLDS` rows.

        Args:
            reference: held-out rows.
            statistics: False to look at the embedding alone.
        """
        rows, labels = features(reference.predictions), reference.labels
        if not statistics:
            rows = rows[:, :EMBEDDING_SIZE]
        fold = np.random.default_rng(0).permutation(len(rows)) % FOLDS
        usual = np.empty(len(rows))
        for each in range(FOLDS):
            unseen = fold == each
            usual[unseen] = ClassGaussians.fit(rows[~unseen], labels[~unseen]).distances(rows[unseen])
        return cls(ClassGaussians.fit(rows, labels), np.sort(usual))

    @classmethod
    def of(cls, package: Package) -> "Typicality | None":
        """Read that of a package; None where it was made before packages held one.

        Raises:
            DamagedPackage: the file is not what `to_bytes` writes.
            ValueError: the package is in no folder.
        """
        if package.folder is None:
            raise ValueError("a package must be in a folder: write or read it first")
        path = package.folder / TYPICALITY
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as arrays:
                usual = arrays["usual"]
                return cls(ClassGaussians(**{name: arrays[name] for name in arrays.files if name != "usual"}), usual)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise DamagedPackage(f"{path} cannot be read: {error}") from None

    def to_bytes(self) -> bytes:
        """NumPy's npz, without pickles."""
        buffer = io.BytesIO()
        np.savez(buffer, usual=self._usual, **vars(self.classes))
        return buffer.getvalue()

    def distances(self, predictions: Predictions) -> Rows:
        """How far each of N pictures is from the nearest class, `(N,)`; larger is less usual."""
        return self.distances_of(features(predictions))

    def distances_of(self, features: Rows) -> Rows:
        """The same of N rows of embedding and statistics, `(N, 16 + 8)`, as the prediction log holds them."""
        return self.classes.distances(features)

    def shares(self, distances: Rows) -> Rows:
        """The share of the reference's pictures that are less usual than each of N, `(N,)` in [0, 1].

        Of pictures as in the reference, a share of p is below p: 1 % of them below 0.01.

        Args:
            distances: (N,) of `distances`.
        """
        return 1 - np.searchsorted(self._usual, distances, "left") / len(self._usual)

    def distances_beyond(self, shares: Sequence[float]) -> Rows:
        """The distances that shares of the reference's pictures are beyond, in the shares' order."""
        bounds: Rows = np.quantile(self._usual, 1 - np.asarray(shares))
        return bounds


def features(predictions: Predictions) -> Rows:
    """The rows that distances are measured of: embedding and statistics, `(N, 16 + 8)`."""
    return np.concatenate([predictions.embeddings, predictions.statistics], axis=1, dtype=np.float64)
