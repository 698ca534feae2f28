"""Drift decisions on traffic whose rows are not independent: part of `drift_power`."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.drift import DecisionConfig
from fashion.data.dataset import Dataset
from fashion.drift.decision import WindowStats
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import Predictions, Predictor
from fashion.predictions.record import UNLABELLED
from tests.benchmarks.measurement import Table, say
from tests.support import shifts, traffic
from tests.support.traffic import Pictures, Scenario, Traffic

CLEAN, SHIFTED = 400, 10
"""Windows of each scenario without a shift, and with each of the shifts."""
ALONE = 4
"""Of the windows without a shift, each fourth is decided by its rows alone too."""
YEARS = 5
"""Years of daily windows."""
KINDS = "brightness"
"""The statistic of which a client of one kind sends a fifth."""
DETECTED_UNDER = (
    "each picture once",
    "each picture 4 times",
    "20 clients, 50 of any each",
    "20 clients, 50 of one class each",
    "20 clients, 50 of one kind each",
    "200 clients, 5 of one class each",
    "one client, 100 of one class, among 900",
    "4 clients, 250 of any each",
)


def compared_with_origins(
    data: Dataset, predictor: Predictor, reference: ReferenceStats, settings: DecisionConfig, *, quick: bool
) -> Iterator[Table]:
    """Draw windows of test pictures, decide on them with and without their origins, and count."""
    settings = dataclasses.replace(settings, resplits=0)
    usual, clean, shifted = predictor.predict(data.test.images), 2 if quick else CLEAN, 1 if quick else SHIFTED
    names = shifts.NAMES[:2] if quick else shifts.NAMES
    by_shift = {name: predictor.predict(shifts.apply(data.test.images, name)) for name in names}
    rows = []
    for name, scenario in traffic.SCENARIOS.items():
        windows = list(_windows(scenario, data.test.labels, usual, None, clean))
        origins = [decide(reference, usual, window, settings) for window in windows]
        without = [decide(reference, usual, window, settings, origins=False) for window in windows[::ALONE]]
        found: list[DriftResult] = []
        if name in DETECTED_UNDER:
            for shift, predicted in by_shift.items():
                drawn = _windows(scenario, data.test.labels, usual, shift, shifted)
                found += [decide(reference, predicted, window, settings) for window in drawn]
        rows.append(_row(name, without, origins, found))
        say(str(rows[-1]))
    note = (
        f"Shares of windows of test pictures, {clean} of each kind without a shift (a fourth of them by rows alone) "
        f"and {shifted} with each of "
        f"{len(names)} shifts (tests/support/shifts.py, traffic.py), alpha {settings.alpha:g}. `rows alone`: as if "
        "each row were of another picture and of nobody. `worth`: independent rows of the test that they are worth "
        "least to, median."
    )
    yield Table("Drift decisions on traffic that repeats", rows, note, _formats(rows))


def year(
    data: Dataset, predictor: Predictor, reference: ReferenceStats, settings: DecisionConfig, *, quick: bool
) -> Table:
    """Decide on daily windows without a shift, with and without a limit on the false alarms of a year."""
    usual, days, rng = predictor.predict(data.test.images), 5 if quick else 365 * YEARS, np.random.default_rng(3)
    windows = [rng.choice(len(usual.labels), 1000, replace=False) for _ in range(days)]
    rows: list[dict[str, Any]] = []
    for limit in (None, 1.0):
        limited = dataclasses.replace(settings, resplits=0, runs_per_year=365, false_alarms_per_year=limit)
        found = [decide(reference, usual, Traffic(each, [""] * len(each)), limited) for each in windows]
        alarms = sum(each.decision == "drift" for each in found)
        row = {"false_alarms_per_year": "null" if limit is None else f"{limit:g}", "alpha of a run": found[0].alpha}
        row |= {"expected at most": found[0].false_alarms_per_year, "drift in a year": alarms / days * 365}
        rows.append(row)
    note = f"{days} windows of 1,000 test pictures without a shift, one a day; how many a year are called drift."
    formats = {"alpha of a run": ".2g", "expected at most": ".2f", "drift in a year": ".1f"}
    return Table("False alarms of a year", rows, note, formats)


def decide(
    reference: ReferenceStats,
    predicted: Predictions,
    window: Traffic,
    settings: DecisionConfig,
    *,
    origins: bool = True,
) -> DriftResult:
    """What the drift flow would say of a window.

    Args:
        reference: of the model.
        predicted: all pictures.
        window: which of them were sent.
        settings: of the decision.
        origins: False hides pictures and clients.
    """
    stats, count = WindowStats(reference), len(window.rows)
    times = np.arange(1, count + 1)
    stats.add(predicted[window.rows], np.full(count, UNLABELLED), times, window.origins if origins else None)
    return stats.decide(settings, model_version="1")


def _windows(
    scenario: Scenario, labels: NDArray[np.int64], usual: Predictions, shift: str | None, count: int
) -> Iterator[Traffic]:
    rng = np.random.default_rng(0)
    statistic = usual.statistics[:, STATISTICS.index(KINDS)]
    for _ in range(count):
        chosen = np.arange(len(labels))
        if shift in shifts.CLASSES:  # clients choose from what a shift of classes leaves
            weights = shifts.CLASSES[shift](labels, rng)
            chosen = chosen[rng.random(len(labels)) < weights / weights.max()]
        window = scenario(Pictures(labels[chosen], statistic[chosen]), rng)
        yield window._replace(rows=chosen[window.rows])


def _row(
    name: str, without: Sequence[DriftResult], origins: Sequence[DriftResult], found: Sequence[DriftResult]
) -> Any:
    return {
        "traffic": name,
        "rows alone: drift": _share([each.decision == "drift" for each in without]),
        "harmful": _share([each.level == "harmful" for each in without]),
        "now: drift": _share([each.decision == "drift" for each in origins]),
        "now: harmful": _share([each.level == "harmful" for each in origins]),
        "not decided": _share([each.decision == "insufficient_data" for each in origins]),
        "worth": float(np.median([each.traffic.worth if each.traffic else 0 for each in origins])),
        "shifts found": _share([each.decision == "drift" for each in found]) if found else None,
        "shifts not decided": _share([each.decision == "insufficient_data" for each in found]) if found else None,
    }


def _share(values: Sequence[bool]) -> float:
    return float(np.mean(values))


def _formats(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {key: ".1%" for key in rows[0] if key not in ("traffic", "worth")}
