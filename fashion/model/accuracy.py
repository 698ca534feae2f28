"""Estimate the accuracy of a window of predictions without labels. Knows sums over rows, no logs and no tests of drift.

The fall of accuracy below the reference's follows from how far the window's `SIGNALS` are from the usual: confidence,
as in "difference of confidences" (Guillory et al., ICCV 2021, arXiv:2107.03315); the share of rows below a confidence,
as in "average thresholded confidence" (Garg et al., ICLR 2022, arXiv:2201.04234); the shares of rows that are unlike
the reference, which see what a model is confidently wrong about; and how far the predicted classes' shares have moved,
which tells another mix of pictures from a model that takes all for one class. Regression trees know how these go
together: `fashion.model.accuracy_calibration` fits them.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.model.package import ACCURACY, DamagedPackage, Package
from fashion.model.predictor import Predictions
from fashion.model.trees import Trees
from fashion.model.typicality import ClassGaussians, Rows, Typicality, features

BEYOND = (0.05, 0.01, 0.001)
"""Rows are counted that are less usual than all but these shares of the reference."""
SIGNALS = (
    "confidence",
    "entropy",
    "unsure",
    *(f"embedding_{share}" for share in BEYOND),
    *(f"picture_{share}" for share in BEYOND),
    "classes",
)
"""Means over a window's rows: of the confidence; of the entropy of the class probabilities, in nats; the shares of rows
below the confidence `AccuracyEstimator.unsure`, and of rows with an unusual embedding, and with an unusual embedding
and image statistics together. Last, the share of rows that would have to be of another predicted class for the classes
to have their usual shares."""
OF_ROWS = len(SIGNALS) - 1
"""How many of them are means over rows."""
UNITS = np.array([2.0**32, 2.0**32, *[1.0] * (OF_ROWS - 2)])
"""Parts that a signal of rows is divided into to be summed as an integer: sums of floats depend on their order."""
HARMFUL = 0.05
"""Fall of accuracy above which a window is harmful."""
CALLED_HARMFUL = 0.045
"""Estimated fall above which it is called so: trees are drawn towards the falls that are frequent, which are small."""
RELIABLE = 0.05
"""Half of the width that the interval of a reliable estimate has at most."""
FLOOR = 0.02
"""Fall of accuracy below which the error of an estimate does not shrink with it any more."""


@dataclass(frozen=True)
class Estimate:
    """Accuracy without labels."""

    accuracy: float
    """In [0, 1]."""
    reliable: bool
    """True if the interval is at most 2 `RELIABLE` wide. Of windows of 1,000 rows where it is true, the interval holds
    the accuracy of at least 95 %, under kinds of change that calibrated nothing; of 200 rows, of a little fewer
    (benchmark `severity`). Of older packages: True if the mean confidence has hardly changed."""
    low: float | None = None
    """Lower bound of the interval: error of the estimate on corruptions that it was not fitted to, and chance. None
    with packages from before `accuracy.npz`."""
    high: float | None = None
    """Upper bound likewise."""
    signals: tuple[tuple[str, float, float, float], ...] = ()
    """Name of each of `SIGNALS`, its value, the usual one, and the fall of accuracy that the estimate draws from it."""


@dataclass(frozen=True, eq=False)
class Linear:
    """A fall for each unit of a signal, as packages from before `Trees` have it."""

    weights: Rows
    """(K,)"""

    def contributions(self, row: NDArray[np.floating]) -> Rows:
        """What each of K signals adds to the fall. See `Trees.contributions`."""
        return np.asarray(self.weights * row, np.float64)


@dataclass(frozen=True, eq=False)
class AccuracyEstimator:
    """Estimates the accuracy of one model's windows."""

    pictures: ClassGaussians
    """Of embedding and image statistics, from `typicality.npz`."""
    embeddings: ClassGaussians
    """Of the embedding."""
    bounds: Rows
    """(2, 3) distances that the shares `BEYOND` of the reference are beyond: of the embedding, of both."""
    unsure: float
    """Confidence that as many rows of the reference are below as are wrong."""
    accuracy: float
    """Of the reference."""
    usual: Rows
    """(OF_ROWS,) signals of the reference's rows."""
    classes: Rows
    """(C,) shares of the predicted classes in the reference."""
    rule: Trees | Linear
    """The fall of accuracy that changes of the signals mean."""
    error: float
    """Of an estimated fall f, the error is at most this times FLOOR + |f| for most kinds of change."""

    @classmethod
    def of(cls, package: Package) -> "AccuracyEstimator | None":
        """Read that of a package; None where it was made before packages held one.

        Raises:
            DamagedPackage: the file is not what `to_bytes` writes.
            ValueError: the package is in no folder.
        """
        typicality = Typicality.of(package)
        if package.folder is None or typicality is None or not (package.folder / ACCURACY).is_file():
            return None
        path = package.folder / ACCURACY
        try:
            with np.load(path, allow_pickle=False) as arrays:
                fields: dict[str, Any] = {name: arrays[name] for name in arrays.files}
            gaussians = {name: fields.pop(name) for name in ("columns", "whitening", "offsets", "log_volumes")}
            rule = _rule(fields, len(package.class_names))
            fields |= {name: float(fields[name]) for name in ("unsure", "accuracy", "error")}
            found = cls(typicality.classes, ClassGaussians(**gaussians), **fields, rule=rule)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise DamagedPackage(f"{path} cannot be read: {error}") from None
        if len(found.usual) != OF_ROWS:
            raise DamagedPackage(f"{path} has {len(found.usual)} signals; this version of fashion has {OF_ROWS}")
        return found

    def to_bytes(self) -> bytes:
        """NumPy's npz, without pickles and without what `typicality.npz` holds."""
        fields = {name: value for name, value in vars(self).items() if name not in ("pictures", "embeddings", "rule")}
        rule = {f"rule.{name}": value for name, value in vars(self.rule).items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(self.embeddings), **fields, **rule)
        return buffer.getvalue()

    def signals(self, rows: Predictions) -> NDArray[np.int64]:
        """The signals of each of N rows, (N, OF_ROWS), in `UNITS`.

        Args:
            rows: without NaN and infinity.
        """
        probabilities = rows.probabilities.astype(np.float64)
        entropies = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=1)
        found = np.empty((len(rows.labels), OF_ROWS), np.int64)
        found[:, 0] = np.rint(rows.confidences.astype(np.float64) * UNITS[0])
        found[:, 1] = np.rint(entropies * UNITS[1])
        found[:, 2] = rows.confidences < self.unsure
        both = features(rows)
        found[:, 3:6] = self.embeddings.distances(both)[:, None] > self.bounds[0]
        found[:, 6:9] = self.pictures.distances(both)[:, None] > self.bounds[1]
        return found

    def sums(self, rows: Predictions) -> NDArray[np.int64]:
        """What a window is summed up as, (OF_ROWS + C,): its signals, and the rows of each predicted class.

        Sums over parts of a window add up to those of the whole.

        Args:
            rows: without NaN and infinity.
        """
        counts = np.bincount(rows.labels, minlength=len(self.classes))
        return np.concatenate([self.signals(rows).sum(axis=0), counts])

    def changes(self, sums: NDArray[np.int64]) -> Rows:
        """How far each of `SIGNALS` is from the usual, (K,).

        Args:
            sums: of `sums`, over a window of one row at least.
        """
        return np.append(means(sums) - self.usual, self._moved(sums))

    def fall(self, sums: NDArray[np.int64]) -> float:
        """Estimate how much lower the accuracy is than the reference's; negative where it is higher.

        Args:
            sums: of `sums`, over a window of one row at least.
        """
        return float(self.rule.contributions(self.changes(sums)).sum())

    def estimate(self, sums: NDArray[np.int64]) -> Estimate:
        """Estimate the accuracy of a window. The argument is that of `fall`."""
        falls = self.rule.contributions(self.changes(sums))
        fall, rows = float(falls.sum()), _rows(sums)
        accuracy = min(1.0, max(0.0, self.accuracy - fall))
        chance = 1.96 * np.sqrt(max(accuracy * (1 - accuracy), 1 / rows) / rows)
        margin = float(np.hypot(self.error * (FLOOR + abs(fall)), chance))
        now, usual = [*means(sums).tolist(), self._moved(sums)], [*self.usual.tolist(), 0.0]
        signals = zip(SIGNALS, now, usual, falls.tolist(), strict=True)
        low, high = max(0.0, accuracy - margin), min(1.0, accuracy + margin)
        return Estimate(accuracy, margin <= RELIABLE, low, high, tuple(signals))

    @property
    def called_harmful(self) -> float:
        """Estimated fall of accuracy above which a window is called harmful."""
        return CALLED_HARMFUL if isinstance(self.rule, Trees) else HARMFUL

    def _moved(self, sums: NDArray[np.int64]) -> float:
        return float(np.abs(sums[OF_ROWS:] / _rows(sums) - self.classes).sum() / 2)


def _rows(sums: NDArray[np.int64]) -> int:
    return int(sums[OF_ROWS:].sum())


def _rule(fields: dict[str, Any], num_classes: int) -> Trees | Linear:
    """Take the rule out of the arrays of a package; add what packages with weights lack."""
    if "weights" in fields:
        fields.setdefault("classes", np.zeros(num_classes))
        return Linear(np.append(fields.pop("weights"), 0.0))
    prefix = "rule."
    names = [name for name in fields if name.startswith(prefix)]
    arrays = {name.removeprefix(prefix): fields.pop(name) for name in names}
    return Linear(**arrays) if "weights" in arrays else Trees(**arrays)


def means(sums: NDArray[np.int64]) -> Rows:
    """The signals of a window's rows, (OF_ROWS,).

    Args:
        sums: of `AccuracyEstimator.sums`, over a window of one row at least.
    """
    found: Rows = sums[:OF_ROWS] / _rows(sums) / UNITS
    return found
