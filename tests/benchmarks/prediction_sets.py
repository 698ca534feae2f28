"""How often prediction sets hold the true class, of each class and where pictures change, and how large they are."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import stats

from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.data.dataset import Dataset
from fashion.model.prediction_sets import PredictionSets
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from tests.benchmarks import champion
from tests.benchmarks.measurement import ServingOptions, Table, fashion_mnist, run_one
from tests.support import shifts

RESPLITS = 200


def tables(options: ServingOptions) -> Iterator[Table]:
    """Measure coverage over resplits of held-out and test rows, then of test rows under each shift."""
    data = fashion_mnist(3000 if options.quick else None)
    predictor = Predictor(champion.load_package(options.home, data, quick=options.quick))
    coverage = load_as(ServeConfig, compose(root="serve")).serve.coverage
    yield _resplits(data, predictor, coverage, 5 if options.quick else RESPLITS)
    yield _shifts(data, predictor, coverage, shifts.NAMES[:2] if options.quick else shifts.NAMES)


def _resplits(data: Dataset, predictor: Predictor, coverage: float, resplits: int) -> Table:
    labels = np.concatenate([data.val.labels, data.test.labels])
    rows = _concatenate(predictor.predict(data.val.images), predictor.predict(data.test.images))
    rng, classes = np.random.default_rng(0), len(data.class_names)
    held, counts = np.zeros((resplits, classes)), np.zeros((resplits, classes))
    for number in range(resplits):
        calibration, test = np.array_split(rng.permutation(len(labels)), 2)
        sets = PredictionSets.fit(Reference(labels[calibration], rows[calibration]))
        inside = _holds(sets, rows[test], labels[test], coverage)
        held[number] = np.bincount(labels[test], inside, minlength=classes)
        counts[number] = np.bincount(labels[test], minlength=classes)
    found: list[dict[str, Any]] = []
    for name, right, count in [
        *zip(data.class_names, held.T, counts.T, strict=True),
        ("all", held.sum(1), counts.sum(1)),
    ]:
        low, high = stats.binom.interval(0.95, round(count.mean()), coverage)
        found.append(
            {
                "class": name,
                "coverage": right.sum() / count.sum(),
                "rows of one": count.mean(),
                "binomial, low": low / count.mean(),
                "binomial, high": high / count.mean(),
            }
        )
    note = (
        f"{resplits} times, half of the held-out and test rows calibrate sets of coverage {coverage}, and the others "
        "are looked up. The 95 % interval is that of as many rows as one test part has."
    )
    return Table("Coverage of prediction sets", found, note, _percent(found))


def _shifts(data: Dataset, predictor: Predictor, coverage: float, names: Sequence[str]) -> Table:
    sets = PredictionSets.fit(Reference.of(predictor.package))
    least, labels = sets.thresholds(coverage), data.test.labels
    found: list[dict[str, Any]] = []
    for name in (None, *names):
        rows = predictor.predict(shifts.apply(data.test.images, name) if name else data.test.images)
        drawn = shifts.sample_rows(labels, name, min(2000, len(labels) // 4), np.random.default_rng(1))
        rows, true = rows[drawn], labels[drawn]
        members = rows.probabilities >= least
        members[np.arange(len(true)), rows.labels] = True
        found.append(
            {
                "shift": name or "none",
                "coverage": _holds(sets, rows, true, coverage).mean(),
                "of answers": members[np.arange(len(true)), true].mean(),
                "accuracy": (rows.labels == true).mean(),
                "classes": members.sum(axis=1).mean(),
            }
        )
    note = (
        "2,000 test rows each. Coverage is what drift watches; answers add the most probable class to a set that lacks "
        "it, and `classes` is how many theirs have."
    )
    return Table("Coverage under shifts", found, note, {**_percent(found), "classes": ".2f"})


def _holds(sets: PredictionSets, rows: Predictions, labels: np.ndarray, coverage: float) -> np.ndarray:
    own = rows.probabilities[np.arange(len(labels)), labels]
    return np.asarray(own >= sets.thresholds(coverage)[labels])


def _concatenate(one: Predictions, other: Predictions) -> Predictions:
    return Predictions(*(np.concatenate([getattr(part, name) for part in (one, other)]) for name in vars(one)))


def _percent(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {key: ".1%" for key, value in rows[0].items() if isinstance(value, float) and key != "rows of one"}


if __name__ == "__main__":
    run_one("prediction_sets")
