"""How often drift is called where there is none, and found where there is, beside Evidently's defaults and BBSDs."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fashion.config.compose import compose, load_as
from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.data.dataset import Dataset
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import LABELS, DriftResult
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import Predictions, Predictor
from fashion.model.reference import Reference
from fashion.predictions.record import UNLABELLED
from tests.benchmarks import champion, drift_traffic
from tests.benchmarks.measurement import ServingOptions, Table, fashion_mnist, run_one, say
from tests.support import shifts

SIZES = (200, 1000)
CLEAN, SHIFTED = 200, 20
"""Windows without a shift, and with each."""
CLEAN_EVIDENTLY, SHIFTED_EVIDENTLY = 40, 2
"""Evidently takes seconds where the others take milliseconds."""

Method = Callable[[Predictions], bool]


@dataclass(frozen=True)
class Bench:
    """What all methods have in common."""

    data: Dataset
    predictor: Predictor
    reference: Reference
    reference_stats: ReferenceStats
    settings: DecisionConfig
    quick: bool

    def windows(self, name: str | None, rows: int, count: int) -> Iterator[tuple[Predictions, float]]:
        """Windows of test rows under a shift, and how many of each are right."""
        labels = self.data.test.labels
        images = shifts.apply(self.data.test.images, name) if name else self.data.test.images
        predicted = self.predictor.predict(images)
        rng = np.random.default_rng(rows)
        for _ in range(self.num_windows(count)):
            chosen = shifts.sample_rows(labels, name, rows, rng)
            yield predicted[chosen], float((predicted.labels[chosen] == labels[chosen]).mean())

    def num_windows(self, count: int) -> int:
        """`count`, or 2 in a quick run."""
        return 2 if self.quick else count

    def decide(self, window: Predictions) -> DriftResult:
        """What the drift flow would say."""
        window_stats = WindowStats(self.reference_stats)
        window_stats.add(window, np.full(len(window.labels), UNLABELLED), np.arange(1, len(window.labels) + 1))
        return window_stats.decide(self.settings, model_version="1")


def tables(options: ServingOptions) -> Iterator[Table]:
    """Draw windows of test images, let each method decide, and count."""
    data = fashion_mnist(3000 if options.quick else None)
    packed = champion.load_package(options.home, data, quick=options.quick)
    reference = Reference.of(packed)
    defaults = load_as(DriftConfig, compose(root="drift")).decision
    bench = Bench(
        data,
        Predictor(packed),
        reference,
        ReferenceStats.of(packed),
        dataclasses.replace(defaults, resplits=0),
        options.quick,
    )
    names = shifts.NAMES[:2] if options.quick else shifts.NAMES
    yield _methods(bench, names)
    yield _by_shift(bench, names)
    common = (bench.data, bench.predictor, bench.reference_stats, bench.settings)
    yield from drift_traffic.compared_with_origins(*common, quick=options.quick)
    yield drift_traffic.year(*common, quick=options.quick)


def _methods(bench: Bench, names: Sequence[str]) -> Table:
    preset, labels_only = _evidently(bench)
    contenders: dict[str, tuple[Method, int, int]] = {
        f"this project, alpha {bench.settings.alpha:g}": (
            lambda window: bench.decide(window).decision == "drift",
            CLEAN,
            SHIFTED,
        ),
        "class probabilities, KS, Bonferroni, alpha 0.05 (BBSDs of Failing Loudly)": (
            lambda window: _bbsds(bench, window, 0.05),
            CLEAN,
            SHIFTED,
        ),
        f"the same, alpha {bench.settings.alpha:g}": (
            lambda window: _bbsds(bench, window, bench.settings.alpha),
            CLEAN,
            SHIFTED,
        ),
        "Evidently's DataDriftPreset, same columns": (preset, CLEAN_EVIDENTLY, SHIFTED_EVIDENTLY),
        "Evidently's default on predicted labels": (labels_only, CLEAN_EVIDENTLY, SHIFTED_EVIDENTLY),
    }
    rows: list[dict[str, Any]] = []
    for name, (method, clean, shifted) in contenders.items():
        row: dict[str, Any] = {"method": name}
        for size in SIZES:
            alarms = [method(window) for window, _ in bench.windows(None, size, clean)]
            found = [method(window) for shift in names for window, _ in bench.windows(shift, size, shifted)]
            row |= {f"false alarms at {size:,}": np.mean(alarms), f"detection at {size:,}": np.mean(found)}
            say(f"{name}, {size} rows: {np.mean(alarms):.1%} false alarms, {np.mean(found):.1%} found")
        rows.append(row)
    clean, shifted, clean_evidently, shifted_evidently = map(
        bench.num_windows, (CLEAN, SHIFTED, CLEAN_EVIDENTLY, SHIFTED_EVIDENTLY)
    )
    note = (
        f"Windows of test images against {bench.reference_stats.rows:,} validation images: {clean} without a shift, "
        f"{shifted} with each of {len(names)} shifts (tests/support/shifts.py); for Evidently {clean_evidently} and "
        f"{shifted_evidently}, for its time."
    )
    return Table("Drift decisions", rows, note, {key: ".1%" for key in rows[0] if key != "method"})


def _by_shift(bench: Bench, names: Sequence[str]) -> Table:
    rows: list[dict[str, Any]] = []
    for name in (None, *names):
        row: dict[str, Any] = {"shift": name or "none"}
        for size in SIZES:
            found = [(bench.decide(window), right) for window, right in bench.windows(name, size, SHIFTED)]
            row[f"drift at {size:,}"] = np.mean([result.decision == "drift" for result, _ in found])
        results = [result for result, _ in found]
        estimates = [result.estimated for result in results if result.estimated is not None]
        row |= {
            "harmful": np.mean([result.level == "harmful" for result in results]),
            "accuracy": np.mean([right for _, right in found]),
            "estimated": np.mean([estimate.accuracy for estimate in estimates]),
            "reliable": np.mean([estimate.reliable for estimate in estimates]),
        }
        rows.append(row)
    note = (
        f"Shares of windows; what is right of the first is at {SIZES[-1]:,} rows. `harmful`: called likely to cost "
        "accuracy; `estimated`: accuracy without labels, to be believed where it is called reliable."
    )
    return Table("Shift by shift", rows, note, {key: ".1%" for key in rows[0] if key != "shift"})


def _bbsds(bench: Bench, window: Predictions, alpha: float) -> bool:
    before = bench.reference.predictions.probabilities
    pairs = zip(window.probabilities.T, before.T, strict=True)
    p_values = [stats.ks_2samp(now, then, method="asymp").pvalue for now, then in pairs]
    return bool(min(p_values) < alpha / len(p_values))


def _evidently(bench: Bench) -> tuple[Method, Method]:
    os.environ.setdefault("DO_NOT_TRACK", "1")
    import pandas as pd

    # A class that is never predicted has a probability of one value, which Evidently divides by.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift
    from evidently.presets import DataDriftPreset

    names = bench.predictor.package.class_names

    def dataset(rows: Predictions) -> Any:
        table: NDArray[Any] = np.concatenate([rows.statistics, rows.probabilities], axis=1)
        columns = [*STATISTICS, *(f"p({name})" for name in names)]
        frame = pd.DataFrame(table, columns=columns)
        frame[LABELS] = [names[label] for label in rows.labels]
        definition = DataDefinition(numerical_columns=columns, categorical_columns=[LABELS])
        return Dataset.from_pandas(frame, data_definition=definition)

    before = dataset(bench.reference.predictions)

    def preset(window: Predictions) -> bool:
        snapshot = Report([DataDriftPreset()]).run(current_data=dataset(window), reference_data=before)
        counts = [each for each in snapshot.dict()["metrics"] if "DriftedColumnsCount" in each["metric_name"]]
        return bool(counts[0]["value"]["share"] >= 0.5)  # the preset's own bound

    def labels_only(window: Predictions) -> bool:
        report = Report([ValueDrift(column=LABELS)], include_tests=True)
        snapshot = report.run(current_data=dataset(window), reference_data=before)
        return bool(snapshot.dict()["tests"][0]["status"].value == "FAIL")

    return preset, labels_only


if __name__ == "__main__":
    run_one("drift_power")
