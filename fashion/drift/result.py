"""The result of comparing one window with a reference, as data. Computes nothing."""

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


LABELS = "predicted label"
"""Name of the one column of the last family."""


@dataclass(frozen=True)
class Column:
    """One of the tests."""

    name: str
    family: str
    distance: float
    """Kolmogorov-Smirnov distance; of the labels, total variation distance. In [0, 1]."""
    p_value: float
    threshold: float
    """The p-value below which this column alone is called drift: its share of alpha."""

    @property
    def drifted(self) -> bool:
        """Whether it is."""
        return self.p_value < self.threshold


@dataclass(frozen=True)
class FalseAlarms:
    """How often the decision was drift, on windows drawn from the reference itself."""

    resplits: int
    rows: int
    """Of each window: as many as were judged, and at most half of the reference."""
    alarms: int
    low: float
    """95 % interval of the rate."""
    high: float


@dataclass(frozen=True)
class Severity:
    """Whether a change is likely to cost accuracy."""

    level: Level
    """none: nothing changed; harmful: a signal is beyond its threshold, see `fashion.model.severity`."""
    signals: Signals
    thresholds: SeverityThresholds


@dataclass(frozen=True)
class Estimate:
    """Accuracy without labels: that of the reference, plus how much the mean confidence has changed.

    Difference of confidences, Guillory et al. 2021 (arXiv:2107.03315).
    """

    accuracy: float
    reliable: bool
    """False where the change is too large for confidences to be trusted."""


@dataclass(frozen=True)
class FeedbackAccuracy:
    """What feedback says. It is on the rows that people chose to judge."""

    rows: int
    accuracy: float
    low: float
    """Wilson's 95 % interval."""
    high: float
    p_decline: float
    """Of Fisher's exact test, one-sided: that accuracy is below the reference's."""
    declined: bool | None
    """None with too few rows to tell."""
    confusion: tuple[tuple[int, ...], ...]
    """True label by predicted label."""
    reference_confusion: tuple[tuple[int, ...], ...]
    """The same of the reference."""


@dataclass(frozen=True)
class DriftResult:
    """What was found in one window of one version's predictions."""

    decision: Decision
    reason: str
    """One sentence, for a person."""
    since_us: int
    """Of the first row; 0 without rows."""
    until_us: int
    """Of the last row."""
    rows: int
    model_version: str
    alpha: float
    min_rows: int
    p_values: dict[str, float]
    """By family, corrected for the number of its columns; drift where one is below a third of alpha."""
    columns: tuple[Column, ...]
    severity: Severity | None
    false_alarms: FalseAlarms | None
    reference_rows: int
    reference_accuracy: float
    mean_confidence: float
    estimated: Estimate | None
    feedback: FeedbackAccuracy | None
    unreadable: int
    """Rows left out: a number of theirs is not finite, or they have other classes than the model."""

    @property
    def level(self) -> Level:
        """Of severity; none where nothing is known of it."""
        return self.severity.level if self.severity else "none"

    @property
    def looked_for(self) -> set[str]:
        """The conditions that there were enough rows to find."""
        enough = {"drift", "harmful"} if self.decision != "insufficient_data" else set()
        return enough | ({"decline"} if self.feedback is not None and self.feedback.declined is not None else set())

    @property
    def conditions(self) -> set[str]:
        """What is to be told of: drift, harmful, decline."""
        found = {"drift"} if self.decision == "drift" else set()
        if self.level == "harmful":
            found.add("harmful")
        if self.feedback is not None and self.feedback.declined:
            found.add("decline")
        return found


def not_comparable(model_version: str, rows: int, since_us: int, until_us: int, asked: DecisionConfig) -> DriftResult:
    """The result for rows of a version that the registry does not know: counted, and not judged."""
    return DriftResult(
        decision="insufficient_data",
        reason=f"{rows:,} rows are of version {model_version}, which the registry does not hold: there is no reference",
        since_us=since_us,
        until_us=until_us,
        rows=rows,
        model_version=model_version,
        alpha=asked.alpha,
        min_rows=asked.min_rows,
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


def empty_window(window: tuple[int, int], asked: DecisionConfig) -> DriftResult:
    """The result for a window without rows."""
    empty = not_comparable("", 0, *window, asked)
    return dataclasses.replace(empty, reason="nothing was predicted in this window")


def result_as_dict(result: DriftResult) -> dict[str, Any]:
    """A result as JSON has it: numbers that are none become null."""
    fields = {**dataclasses.asdict(result), "level": result.level, "conditions": sorted(result.conditions)}
    return {key: _plain(value) for key, value in fields.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
