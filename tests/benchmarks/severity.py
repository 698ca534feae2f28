"""How often windows that lose accuracy are called harmful, and how well accuracy is estimated without labels."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from fashion.data.dataset import Dataset
from fashion.images.corruptions import CORRUPTIONS, corrupt
from fashion.images.transform import Images
from fashion.model import accuracy_calibration
from fashion.model.accuracy import CALLED_HARMFUL, HARMFUL, AccuracyEstimator
from fashion.model.accuracy_calibration import Pools
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality
from tests.benchmarks import champion
from tests.benchmarks.measurement import ServingOptions, Table, fashion_mnist, measured, run_one, say
from tests.support.foreign import FOREIGN
from tests.support.odd import ODD, RELATED

AMOUNTS = (0.03, 0.07, 0.12, 0.18, 0.27, 0.4, 0.6, 0.9)
"""Strengths of the windows that test; those that calibrate are other ones, on other pictures."""
SHARES = (1.0, 0.5, 0.3, 0.2, 0.1)
"""Share of a window's rows that are changed; the others are test pictures as they are."""
CLASSES = {
    "no shirts": (0, 1, 2, 3, 4, 5, 7, 8, 9),
    "shoes only": (5, 7, 9),
    "sneakers only": (7,),
    "tops only": (0, 2, 4, 6),
    "trousers only": (1,),
}
SOURCE_ROWS = 2000
"""Test pictures under each change, from which windows are drawn."""
PER_CELL = 4
"""Windows of each kind, strength and share."""
SIZES = (1000, 200)
SEEDS = (0, 1, 2)
"""Of the calibration."""
NEAR = 0.01
"""Falls that are this near the bound of harm are left out of the second figures: chance decides about them."""
PUBLISHED = ("DoC", "ATC", "CBPE")
"""Difference of confidences (Guillory et al. 2021), average thresholded confidence (Garg et al. 2022), and NannyML's
confidence-based performance estimation: the mean of the calibrated confidence."""
SLOW = {"darkness": 0.6, "motion_blur": 0.25, "rotation": 0.3, "noise": 0.25}
"""Kind -> strength of the last of 20 windows, which grows from nothing."""


@dataclass(frozen=True, eq=False)
class Source:
    """N rows under one change: windows are drawn from them."""

    kind: str
    related: tuple[str, ...]
    """Kinds of corruption that may not have calibrated what is tested on it."""
    signals: NDArray[np.int64]
    """(N, OF_ROWS + C): signals, and the predicted class as a one among zeros."""
    published: NDArray[np.float64]
    """(N, M): what each of M published estimators makes of a row; the mean is the fall of accuracy."""
    right: NDArray[np.bool_]
    shares: tuple[float, ...] = SHARES


@dataclass(frozen=True, eq=False)
class Window:
    """What is measured of test rows, and the accuracy that was lost."""

    kind: str
    related: tuple[str, ...]
    rows: int
    sums: NDArray[np.int64]
    """Of the signals and the classes."""
    published: NDArray[np.float64]
    """(M,) fall of accuracy by the published estimators."""
    fall: float


@dataclass(frozen=True, eq=False)
class Found:
    """What one method says of all windows."""

    falls: NDArray[np.float64]
    estimates: NDArray[np.float64]

    def row(self, name: str, bound: float = HARMFUL) -> dict[str, Any]:
        """Shares of right and wrong decisions, and the mean absolute errors.

        Args:
            name: of the method.
            bound: estimates above it call a window harmful.
        """
        harmful, called = self.falls > HARMFUL, self.estimates > bound
        clear, small = np.abs(self.falls - HARMFUL) > NEAR, self.falls < 0.1
        errors = np.abs(self.estimates - self.falls)
        return {
            "method": name,
            "found": called[harmful].mean(),
            "false": called[~harmful].mean(),
            "found, clear": called[harmful & clear].mean(),
            "false, clear": called[~harmful & clear].mean(),
            "error": 100 * errors.mean(),
            "error below 10": 100 * errors[small].mean(),
        }


FORMATS = {
    **dict.fromkeys(("found", "false", "found, clear", "false, clear", "reliable", "right", "reliable, clean"), ".1%"),
    **dict.fromkeys(("error", "error below 10", "DoC", "ATC", "CBPE", "this project", "bias"), ".1f"),
}


def tables(options: ServingOptions) -> Iterator[Table]:
    """Calibrate with all kinds of change but one, and test on windows of that one."""
    data = fashion_mnist(3000 if options.quick else None)
    packed = champion.load_package(options.home, data, quick=options.quick)
    predictor, reference = Predictor(packed), Reference.of(packed)
    typicality = Typicality.fit(reference)
    pools: list[Pools] = []
    for seed in SEEDS[:1] if options.quick else SEEDS:
        spent = measured(lambda seed=seed: pools.append(_pools(data, predictor, reference, typicality, seed)))  # type: ignore[misc]
        say(f"calibration {seed}: {spent.cpu:.1f} CPU-s")
    sources = list(_sources(data, predictor, pools[0].estimator, _published(reference), quick=options.quick))
    say(f"{len(sources)} sources")
    for size in SIZES:
        windows = list(_windows(sources, pools[0].estimator.accuracy, size, 1 if options.quick else PER_CELL))
        yield _by_method(windows, pools, size)
        if size == SIZES[0]:
            yield _by_kind(windows, pools[0])
    yield _slow(data, predictor, pools[0], quick=options.quick)


def _pools(data: Dataset, predictor: Predictor, reference: Reference, typicality: Typicality, seed: int) -> Pools:
    return accuracy_calibration.measure(predictor.predict, data.val.images, reference, typicality, seed=seed)


def _sources(
    data: Dataset,
    predictor: Predictor,
    estimator: AccuracyEstimator,
    published: Callable[[Predictions], NDArray[np.float64]],
    *,
    quick: bool,
) -> Iterator[Source]:
    rng = np.random.default_rng(1)
    rows = min(SOURCE_ROWS, len(data.test.labels))

    def source(kind: str, related: tuple[str, ...], images: Images, labels: NDArray[np.int64]) -> Source:
        found = predictor.predict(np.ascontiguousarray(images))
        classes = np.eye(len(estimator.classes), dtype=np.int64)[found.labels]
        signals = np.concatenate([estimator.signals(found), classes], axis=1)
        return Source(kind, related, signals, published(found), found.labels == labels)

    whole = source("none", (), data.test.images, data.test.labels)
    yield dataclasses.replace(whole, shares=(0.0,) * 10)
    for name, classes in CLASSES.items():
        of_class = np.flatnonzero(np.isin(data.test.labels, classes))
        yield Source(
            name, (), whole.signals[of_class], whole.published[of_class], whole.right[of_class], shares=(1.0,) * 3
        )
    for kind in sorted(CORRUPTIONS)[: 2 if quick else None]:
        for amount in AMOUNTS:
            chosen = rng.choice(len(data.test.labels), rows, replace=False)
            changed = corrupt(data.test.images[chosen], kind, amount, seed=int(rng.integers(2**31)))
            yield source(kind, (kind,), changed, data.test.labels[chosen])
    for kind, change in ODD.items():
        yield source(kind, RELATED.get(kind, ()), change(data.test.images[:rows]), data.test.labels[:rows])
    for kind, make in FOREIGN.items():
        yield source(kind, (), make(rows, rng), np.full(rows, -1))


def _windows(sources: Sequence[Source], accuracy: float, size: int, per_cell: int) -> Iterator[Window]:
    """Windows of `size` rows; those that are not changed are test pictures as they are, of the first source."""
    clean, rng = sources[0], np.random.default_rng(size)
    for source in sources:
        for share in np.repeat(source.shares, per_cell):
            changed = int(rng.binomial(size, share))
            own = rng.choice(len(source.right), changed, replace=changed > len(source.right))
            others = rng.choice(len(clean.right), size - changed, replace=size > len(clean.right))
            sums = source.signals[own].sum(axis=0) + clean.signals[others].sum(axis=0)
            published = (source.published[own].sum(axis=0) + clean.published[others].sum(axis=0)) / size
            right = (source.right[own].sum() + clean.right[others].sum()) / size
            yield Window(source.kind, source.related, size, sums, published, accuracy - float(right))


def _published(reference: Reference) -> Callable[[Predictions], NDArray[np.float64]]:
    """What each of `PUBLISHED` makes of a row."""
    rows = reference.predictions
    right = rows.labels == reference.labels
    accuracy, mean = float(right.mean()), float(rows.confidences.mean())
    threshold = float(np.quantile(rows.confidences, 1 - accuracy))
    calibrated = IsotonicRegression(out_of_bounds="clip").fit(rows.confidences, right)

    def of_rows(rows: Predictions) -> NDArray[np.float64]:
        below = (rows.confidences < threshold) - (1 - accuracy)
        return np.stack([mean - rows.confidences, below, accuracy - calibrated.predict(rows.confidences)], axis=1)

    return of_rows


def _by_method(windows: Sequence[Window], pools: Sequence[Pools], size: int) -> Table:
    falls = np.array([window.fall for window in windows])
    kinds = np.array([window.kind for window in windows])
    rows = [
        {**Found(falls, np.array([window.published[column] for window in windows])).row(name), **_trust(None)}
        for column, name in enumerate(PUBLISHED)
    ]
    for seed, each in enumerate(pools):
        estimates, held, reliable = _left_out(windows, each)
        found = Found(falls, estimates)
        rows.append(
            {**found.row(f"this project, calibration {seed}", CALLED_HARMFUL), **_trust((held, reliable, kinds))}
        )
    note = (
        f"{len(windows):,} windows of {size:,} test rows, of {len(set(kinds))} kinds of change and {len(SHARES)} "
        "shares of changed rows; what was calibrated on corruptions has not seen the kind that it is tested on. "
        f"Harmful: a fall of more than {100 * HARMFUL:.0f} points ({(falls > HARMFUL).sum():,} windows); called so: an "
        f"estimate above that, of this project above {100 * CALLED_HARMFUL:.1f}. Clear: without the windows "
        f"{100 * NEAR:.0f} point around that. Errors in points. Right: of the estimates that are called reliable, the "
        "interval holds the accuracy."
    )
    return Table(f"Harm and accuracy without labels, {size:,} rows", rows, note, FORMATS)


def _trust(found: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None) -> dict[str, Any]:
    if found is None:
        return dict.fromkeys(("reliable", "reliable, clean", "right"))
    held, reliable, kinds = found
    right = held[reliable].mean() if reliable.any() else None
    return {"reliable": reliable.mean(), "reliable, clean": reliable[kinds == "none"].mean(), "right": right}


def _left_out(windows: Sequence[Window], pools: Pools) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Estimated falls, whether the intervals hold the accuracies, and whether the estimates are called reliable."""
    estimators: dict[tuple[str, ...], AccuracyEstimator] = {}
    rows = []
    for window in windows:
        if window.related not in estimators:
            estimators[window.related] = pools.fit(without=window.related)
        estimator = estimators[window.related]
        found = estimator.estimate(window.sums)
        accuracy = estimator.accuracy - window.fall
        held = found.low is not None and found.high is not None and found.low <= accuracy <= found.high
        rows.append((estimator.fall(window.sums), held, found.reliable))
    falls, held_all, reliable = (np.array(column) for column in zip(*rows, strict=True))
    return falls, held_all, reliable


def _by_kind(windows: Sequence[Window], pools: Pools) -> Table:
    estimates, held, reliable = _left_out(windows, pools)
    falls = np.array([window.fall for window in windows])
    kinds = np.array([window.kind for window in windows])
    by_method = dict(zip(PUBLISHED, np.stack([window.published for window in windows], axis=1), strict=True))
    by_method["this project"] = estimates
    rows = []
    for kind in dict.fromkeys(kinds):
        of = kinds == kind
        harmful = falls[of] > HARMFUL
        called = estimates[of] > CALLED_HARMFUL
        row: dict[str, Any] = {
            "change": str(kind),
            "harmful": int(harmful.sum()),
            "found": called[harmful].mean() if harmful.any() else None,
            "harmless": int((~harmful).sum()),
            "false": called[~harmful].mean() if (~harmful).any() else None,
            "right": held[of & reliable].mean() if (of & reliable).any() else None,
        }
        rows.append(row | {name: 100 * np.abs(found - falls)[of].mean() for name, found in by_method.items()})
    note = "The windows of the table above, by kind of change. The last columns: mean absolute error in points."
    return Table(f"The same by kind, {SIZES[0]:,} rows", rows, note, FORMATS)


def _slow(data: Dataset, predictor: Predictor, pools: Pools, *, quick: bool) -> Table:
    """Drift that grows over 20 windows: the first one that is harmful, and the first one that is called so."""
    rows: list[dict[str, Any]] = []
    rng = np.random.default_rng(2)
    for kind, last in list(SLOW.items())[: 1 if quick else None]:
        estimator = pools.fit(without=(kind,))
        falls, called = [], []
        for number in range(1, 21):
            chosen = rng.choice(len(data.test.labels), 1000, replace=False)
            found = predictor.predict(corrupt(data.test.images[chosen], kind, last * number / 20, seed=number))
            falls.append(estimator.accuracy - (found.labels == data.test.labels[chosen]).mean())
            called.append(estimator.fall(estimator.sums(found)) > CALLED_HARMFUL)
        harmful = [fall > HARMFUL for fall in falls]
        rows.append(
            {
                "drift": f"{kind} up to {last}",
                "harmful from window": harmful.index(True) + 1 if any(harmful) else None,
                "called from window": called.index(True) + 1 if any(called) else None,
                "found": f"{sum(a and b for a, b in zip(harmful, called, strict=True))} of {sum(harmful)}",
                "false": f"{sum(b and not a for a, b in zip(harmful, called, strict=True))} of {20 - sum(harmful)}",
            }
        )
    return Table("Slow drift", rows, "20 windows of 1,000 rows; the kind of change did not calibrate the estimate.")


if __name__ == "__main__":
    run_one("severity")
