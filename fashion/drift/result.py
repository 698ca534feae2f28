"""The result of comparing one window with a reference, as data. Knows no tests and no rows."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from fashion.config.drift import DecisionConfig
from fashion.model.package import SeverityThresholds
from fashion.model.severity import Signals

Decision = Literal["insufficient_data", "no_drift", "drift"]
Level = Literal["none", "harmless", "harmful"]
FAMILIES = ("image statistics", "class probabilities", "predicted labels")
"""Groups of tests that share alpha equally."""
LABELS = "predicted label"
"""Name of the only column of the last family."""


@dataclass(frozen=True)
class Column:
    """One test, of one column."""

    name: str
    family: str
    """One of `FAMILIES`."""
    distance: float
    """In [0, 1]: Kolmogorov-Smirnov distance, or total variation distance for the labels."""
    p_value: float
    threshold: float
    """This column's share of alpha."""

    @property
    def drifted(self) -> bool:
        """True if the p-value is below the threshold."""
        return self.p_value < self.threshold


@dataclass(frozen=True)
class FalseAlarms:
    """How often the decision was drift for windows sampled from the reference itself."""

    resplits: int
    """Number of windows."""
    rows: int
    """Of each window: as many as the tested window has, and at most half of the reference."""
    alarms: int
    """Windows that were called drift."""
    low: float
    """Lower bound of the 95 % interval of the rate, in [0, 1]."""
    high: float
    """Upper bound of the 95 % interval of the rate, in [0, 1]."""


@dataclass(frozen=True)
class Severity:
    """Whether a change is likely to cost accuracy."""

    level: Level
    """none: no drift; harmless: drift with every signal within its threshold; harmful: a signal is above it."""
    signals: Signals
    thresholds: SeverityThresholds


@dataclass(frozen=True)
class Estimate:
    """Accuracy without labels: that of the reference plus the change of the mean confidence.

    Difference of confidences, Guillory et al. 2021 (arXiv:2107.03315).
    """

    accuracy: float
    """In [0, 1]."""
    reliable: bool
    """False if the change is too large for the estimate to be trusted."""


@dataclass(frozen=True)
class FeedbackAccuracy:
    """Accuracy on the rows with feedback, which people chose: they may differ from the others."""

    rows: int
    """Rows with feedback."""
    accuracy: float
    """In [0, 1]."""
    low: float
    """Lower bound of Wilson's 95 % interval."""
    high: float
    """Upper bound of Wilson's 95 % interval."""
    p_decline: float
    """p-value of Fisher's exact test, one-sided: small if accuracy is below the reference's."""
    declined: bool | None
    """True if `p_decline` is below alpha; None with too few rows for a decision."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows by true label, then predicted label."""
    reference_confusion: tuple[tuple[int, ...], ...]
    """Rows of the reference by true label, then predicted label."""


@dataclass(frozen=True)
class DriftResult:
    """The decision on one window of one version's predictions, with every number it rests on."""

    decision: Decision
    reason: str
    """One sentence, for a person."""
    since_us: int
    """Time of the first row, microseconds since 1970; 0 without rows."""
    until_us: int
    """Time of the last row, microseconds since 1970; 0 without rows."""
    rows: int
    model_version: str
    alpha: float
    """Share of the windows without drift that may be called drift."""
    min_rows: int
    """Rows needed for a decision."""
    p_values: dict[str, float]
    """By family, corrected for the number of its columns; drift if one is below a third of alpha."""
    columns: tuple[Column, ...]
    severity: Severity | None
    false_alarms: FalseAlarms | None
    reference_rows: int
    reference_accuracy: float
    mean_confidence: float
    estimated: Estimate | None
    feedback: FeedbackAccuracy | None
    unreadable: int
    """Rows that were left out: they hold NaN or infinity, or classes that the model does not have."""

    @property
    def level(self) -> Level:
        """The severity's level; none without a severity."""
        return self.severity.level if self.severity else "none"

    @property
    def testable(self) -> set[str]:
        """The conditions for which there were enough rows, whether they hold or not."""
        enough = {"drift", "harmful"} if self.decision != "insufficient_data" else set()
        return enough | ({"decline"} if self.feedback is not None and self.feedback.declined is not None else set())

    @property
    def conditions(self) -> set[str]:
        """The conditions that hold: drift, harmful, decline (accuracy by feedback is below the reference's)."""
        holds = {
            "drift": self.decision == "drift",
            "harmful": self.level == "harmful",
            "decline": self.feedback is not None and bool(self.feedback.declined),
        }
        return {name for name, value in holds.items() if value}


def unknown_version(
    model_version: str, rows: int, since_us: int, until_us: int, settings: DecisionConfig
) -> DriftResult:
    """The result for a version that the registry does not hold: its rows are counted, not tested.

    Args:
        model_version: of the rows.
        rows: their number.
        since_us: time of the first one, microseconds since 1970.
        until_us: time of the last one, microseconds since 1970.
        settings: of the decision.
    """
    return DriftResult(
        decision="insufficient_data",
        reason=f"{rows:,} rows are of version {model_version}, which the registry does not hold: there is no reference",
        since_us=since_us,
        until_us=until_us,
        rows=rows,
        model_version=model_version,
        alpha=settings.alpha,
        min_rows=settings.min_rows,
        p_values={},
        columns=(),
        severity=None,
        false_alarms=None,
        reference_rows=0,
        reference_accuracy=math.nan,
        mean_confidence=math.nan,
        estimated=None,
        feedback=None,
        unreadable=0,
    )


def empty_window(window: tuple[int, int], settings: DecisionConfig) -> DriftResult:
    """The result for a window without rows, given its bounds in microseconds since 1970."""
    empty = unknown_version("", 0, *window, settings)
    return dataclasses.replace(empty, reason="nothing was predicted in this window")


def result_as_dict(result: DriftResult) -> dict[str, Any]:
    """A result as JSON stores it, with its `level` and `conditions`; NaN and infinity become None."""
    fields = {**dataclasses.asdict(result), "level": result.level, "conditions": sorted(result.conditions)}
    return {key: _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
