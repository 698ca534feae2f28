"""The result of comparing one window with a reference, as data. Knows no tests and no rows."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from fashion.config.drift import DecisionConfig
from fashion.model.accuracy import Estimate
from fashion.model.package import SeverityThresholds
from fashion.model.severity import Signals

Decision = Literal["insufficient_data", "no_drift", "drift"]
Level = Literal["none", "harmless", "harmful"]
FAMILIES = ("image statistics", "class probabilities", "predicted labels")
"""Groups of tests that share alpha equally."""
LABELS = "predicted label"
"""Name of the only column of the last family."""
MAX_UNREADABLE = 0.01
"""Share of rows that cannot be read, from which on that is a condition: a decision on the others says less."""


@dataclass(frozen=True)
class Column:
    """One test, of one column."""

    name: str
    family: str
    """One of `FAMILIES`."""
    distance: float
    """In [0, 1]: Kolmogorov-Smirnov distance, or total variation distance for the labels."""
    p_value: float
    """NaN if too few clients, which differ from each other, sent the rows: they cannot be tested."""
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
    """none: no drift; harmful: drift, and the estimated accuracy has fallen by more than
    `fashion.model.accuracy.HARMFUL`; harmless: drift without that. Of older packages, harmful if a signal is above its
    threshold."""
    signals: Signals | None = None
    """None since packages hold what the estimate needs."""
    thresholds: SeverityThresholds | None = None
    """None likewise."""


@dataclass(frozen=True)
class FeedbackAccuracy:
    """Accuracy by feedback: by rows drawn at random, where enough were reviewed, or else by those that people chose."""

    rows: int
    """Distinct pictures with feedback, the late ones too."""
    accuracy: float
    """In [0, 1]."""
    low: float
    """Lower bound of Wilson's 95 % interval."""
    high: float
    """Upper bound of Wilson's 95 % interval."""
    p_decline: float
    """p-value of Fisher's exact test, one-sided: small if accuracy is below the reference's; NaN if too few clients,
    which differ from each other, sent the rows."""
    declined: bool | None
    """True if `p_decline` is below alpha; None with too few rows or clients for a decision."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows by true label, then predicted label."""
    reference_confusion: tuple[tuple[int, ...], ...]
    """Rows of the reference by true label, then predicted label."""
    note: str = ""
    """Which rows this rests on, and who chose them; one sentence."""
    late: int = 0
    """Of the rows, those of before the window, whose feedback arrived in it."""


@dataclass(frozen=True)
class Traffic:
    """What was counted of a window: each distinct picture once, and clients that send like pictures as few rows."""

    pictures: int
    """Distinct pictures; estimated to 1 % if there are more than were compared."""
    clients: int
    """Distinct clients; estimated to 2 % above 4,096."""
    untagged: int
    """Rows whose sender is not known: each picture of them counts as one of a client of its own."""
    compared: int
    """Distinct pictures that the tests looked at: all, or a uniform sample of them."""
    worth: float
    """Independent rows that the pictures are worth to the test that they are worth least to; 0 if the clients are too
    few and too different for one of the tests."""


@dataclass(frozen=True)
class Slice:
    """A part of the window, compared with the reference by itself.

    The p-values are corrected by Holm's method for the number of slices, so that of all windows without a change at
    most a share of alpha has a slice that is called changed, and likewise declined.
    """

    kind: Literal["client", "hour", "predicted class"]
    name: str
    """The client's tag, the hour of the day in UTC, or the class."""
    pictures: int
    """Distinct pictures that were compared."""
    p_value: float
    """Of its most changed column; NaN where its clients are too few and too different, or it was not compared."""
    changed: bool
    columns: tuple[str, ...]
    """At most three columns that differ, the most changed first."""
    labelled: int
    """Distinct pictures with feedback."""
    accuracy: float
    """Of these; NaN without any."""
    p_decline: float
    """Of Fisher's exact test against the reference, one-sided; NaN where there is too little feedback."""
    declined: bool

    @property
    def is_unusual(self) -> bool:
        """True if it changed or lost accuracy."""
        return self.changed or self.declined


@dataclass(frozen=True)
class Context:
    """What is known of a window beside its rows."""

    last_before_us: int = 0
    """Of an empty window, when the last prediction before it was made, microseconds since 1970; 0 if there was none, or
    if the window does not end now."""
    late_labels: int = 0
    """Rows of before the window whose feedback arrived in it. They are in `DriftResult.feedback`, unless rows that were
    drawn at random decide."""
    unknown: tuple[str, ...] = ()
    """Models of the unjudged rows, without those of other names: a log may hold the rows of several models."""
    accepted_rows: int = 0
    """Rows of accepted windows that this one is compared with; 0 for the held-out rows of the model package."""
    due_us: int = 0
    """When the next run is due, microseconds since 1970; 0 where this one was not started by a schedule."""
    ends_now: bool = False
    """True if the window is one of time that ends now: only such a one tells whether the service is silent."""
    data: str = ""
    """Name of the data set's config, for the commands that are named to a person; empty for the usual one."""


@dataclass(frozen=True)
class Coverage:
    """How often prediction sets hold the true label, of the rows with feedback."""

    nominal: float
    """How often they are to, for each true class: in whatever mix of classes people judged."""
    rows: int
    """Distinct pictures with feedback."""
    held: float
    """Share of them whose set holds the true label, in [0, 1]. The most probable class, which answers add to a set
    that would lack it, is not added here."""
    low: float
    """Lower bound of Wilson's 95 % interval."""
    high: float
    """Upper bound of Wilson's 95 % interval."""
    p_fall: float
    """p-value of Fisher's exact test, one-sided: small if fewer sets hold the label than of the held-out rows; NaN if
    too few clients, which differ from each other, sent the rows."""
    fallen: bool | None
    """True if `p_fall` is below alpha; None with too few rows or clients for a decision."""
    note: str = ""
    """Which rows this rests on, and who chose them; one sentence."""


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
    """Distinct pictures needed for a decision."""
    p_values: dict[str, float]
    """By family, corrected for the number of its columns; drift if one is below a third of alpha. NaN if too few
    clients, which differ from each other, sent the rows: none of its columns could be tested."""
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
    model_name: str = ""
    """The registered model of the version."""
    model_digest: str = ""
    """Of the version's package, its first digits; empty without rows."""
    unjudged: str = ""
    """One sentence on rows of the same window that have no reference, and why; empty without any."""
    traffic: Traffic | None = None
    """None without rows, and in results of earlier versions."""
    slices: tuple[Slice, ...] = ()
    """Parts of the window that were compared by themselves, the most changed first."""
    false_alarms_per_year: float | None = None
    """Windows of a year that are called drift in expectation though nothing changed, at most; None if unknown."""
    context: Context = Context()
    coverage: Coverage | None = None
    """None without feedback."""

    @property
    def level(self) -> Level:
        """The severity's level; none without a severity."""
        return self.severity.level if self.severity else "none"

    @property
    def testable(self) -> set[str]:
        """The conditions for which there were enough rows, whether they hold or not."""
        testable = {"unjudged"}
        if self.decision != "insufficient_data":
            testable |= {"drift", "harmful"}
        if self.rows + self.unreadable >= self.min_rows:
            testable.add("unreadable")
        if self.feedback is not None and self.feedback.declined is not None:
            testable.add("decline")
        if self.coverage is not None and self.coverage.fallen is not None:
            testable.add("coverage")
        if self.context.ends_now and (self.rows or self.context.last_before_us):
            testable.add("no_traffic")
        return testable

    @property
    def conditions(self) -> set[str]:
        """The conditions that hold.

        drift, harmful, decline (accuracy by feedback is below the reference's), coverage (prediction sets hold the true
        label less often than they are to), unreadable (more than MAX_UNREADABLE of the rows), unjudged (rows of a
        version that the registry does not hold, or of another package of its number), and no_traffic (nothing was
        predicted, and something was before).
        """
        holds = {
            "drift": self.decision == "drift",
            "harmful": self.level == "harmful",
            "decline": self.feedback is not None and bool(self.feedback.declined),
            "coverage": self.coverage is not None and bool(self.coverage.fallen),
            "unreadable": "unreadable" in self.testable and self.unreadable_share > MAX_UNREADABLE,
            "unjudged": bool(self.context.unknown),
            "no_traffic": "no_traffic" in self.testable and not self.rows,
        }
        return {name for name, value in holds.items() if value}

    @property
    def unreadable_share(self) -> float:
        """Share of the rows that cannot be read, in [0, 1]."""
        return self.unreadable / max(1, self.rows + self.unreadable)


def empty_window(model_name: str, window: tuple[int, int], settings: DecisionConfig) -> DriftResult:
    """The result for a window in which nothing can be judged.

    Args:
        model_name: of the registered model.
        window: its bounds in microseconds since 1970.
        settings: of the decision.
    """
    return DriftResult(
        decision="insufficient_data",
        reason="nothing was predicted in this window",
        since_us=window[0],
        until_us=window[1],
        rows=0,
        model_name=model_name,
        model_version="",
        alpha=settings.run_alpha,
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


def with_unjudged(result: DriftResult, sentence: str, unknown: tuple[str, ...] = ()) -> DriftResult:
    """A result of a window that has other rows too, which are not judged.

    Args:
        result: of the rows that were.
        sentence: on the others and why; empty without any.
        unknown: as in `Context`.
    """
    context = dataclasses.replace(result.context, unknown=unknown)
    result = dataclasses.replace(result, context=context)
    if not sentence or result.rows:
        return dataclasses.replace(result, unjudged=sentence)
    reason = f"nothing in this window can be judged. {sentence}"
    return dataclasses.replace(result, unjudged=sentence, reason=reason)


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
