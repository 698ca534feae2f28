"""Configuration of DriftFlow: which rows it reads, when it alerts, and when it trains again."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fashion.config.compose import parse_overrides
from fashion.config.schema import DataConfig, StepConfig, Strict, TrackingConfig, require
from fashion.config.times import moment, runs_per_year, seconds
from fashion.storage.address import open_store


@dataclass(frozen=True)
class DecisionConfig(Strict):
    """How a window is compared with the model's reference."""

    alpha: float
    """Fraction of the windows without drift that may be called drift."""
    min_rows: int
    """Distinct pictures below which a window is not tested."""
    min_labels: int
    """Distinct pictures with feedback below which their accuracy is not tested."""
    resplits: int
    """Windows sampled from the reference itself, to measure the false alarms of this model."""
    false_alarms_per_year: float | None = None
    """False alarms that all decisions of a year may raise together, in expectation, of each condition; null for alpha
    times the runs of a year. It lowers alpha, and with it what small windows can find."""
    runs_per_year: float | None = None
    """Decisions of a year, by which those false alarms are divided; null for as many as `cron` starts."""

    @property
    def run_alpha(self) -> float:
        """The alpha of one run: `alpha`, or less where a year's false alarms are limited."""
        if self.false_alarms_per_year is None or self.runs_per_year is None:
            return self.alpha
        return min(self.alpha, self.false_alarms_per_year / self.runs_per_year)

    def __post_init__(self) -> None:
        require(0 < self.alpha < 0.5, f"alpha must be in (0, 0.5), got {self.alpha}")
        require(self.min_rows >= 50, f"min_rows must be at least 50, got {self.min_rows}: fewer rows cannot show drift")
        require(self.min_labels >= 10, f"min_labels must be at least 10, got {self.min_labels}")
        require(self.resplits >= 0, f"resplits must not be negative, got {self.resplits}")
        for name in ("false_alarms_per_year", "runs_per_year"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"{name} must be positive, got {value}")


@dataclass(frozen=True)
class ReportConfig(Strict):
    """What a report shows. Nothing here changes the decision."""

    rows: int
    """Rows of the window in the plots, sampled at random if there are more."""
    examples: int
    """Number of pictures of the most unusual rows."""
    history: int
    """Number of past windows."""

    def __post_init__(self) -> None:
        require(self.rows >= 100, f"rows must be at least 100, got {self.rows}")
        require(0 <= self.examples <= 100, f"examples must be between 0 and 100, got {self.examples}")
        require(self.history >= 0, f"history must not be negative, got {self.history}")


@dataclass(frozen=True)
class AlertsConfig(Strict):
    """When alerts are sent. Variables such as FASHION_WEBHOOK name the channels; the flow's output always has them."""

    on: tuple[
        Literal[
            "drift",
            "harmful",
            "decline",
            "coverage",
            "unreadable",
            "unjudged",
            "no_traffic",
            "quarantine",
            "approval",
            "training",
            "canary",
            "channel",
            "problem",
        ],
        ...,
    ]
    """What is alerted:

    - drift: any drift, and again when it becomes harmful;
    - harmful: drift that is likely to cost accuracy, alone;
    - decline: feedback shows that accuracy is down;
    - coverage: prediction sets hold the true label less often than the `serve.coverage` of the deployment;
    - unreadable: rows that hold no numbers;
    - unjudged: rows of a version that the registry does not hold;
    - no_traffic: nothing was predicted, and something was before;
    - quarantine: feedback of a source was put aside;
    - approval: a version passed the gate and waits for a person (`gate.approval`);
    - training: the outcome of a training that drift started, on a cluster by the next run;
    - canary: it was promoted, was refused, or waits for a person;
    - channel: an address of alerts that cannot be used;
    - problem: the flow failed."""
    cooldown_hours: float
    """Hours after an alert in which the same condition is not alerted again, though it lasts, unless it becomes worse
    or another one. A run that comes a tenth of it early counts as after it."""
    attempts: int
    """Times that a channel is tried in one run. An alert that still fails is tried in the next run."""
    timeout_s: float
    """Seconds that a channel may take."""

    def __post_init__(self) -> None:
        require(self.cooldown_hours >= 0, f"cooldown_hours must not be negative, got {self.cooldown_hours}")
        require(self.attempts >= 1, f"attempts must be at least 1, got {self.attempts}")
        require(0 < self.timeout_s < 3600, f"timeout_s must be positive and below an hour, got {self.timeout_s}")


@dataclass(frozen=True)
class RetrainConfig(Strict):
    """When a new model is trained, on the original data and on labelled feedback."""

    enabled: bool
    """True to start trainings."""
    on: tuple[Literal["drift", "harmful", "decline"], ...]
    """Conditions, as in `AlertsConfig.on`."""
    cooldown_hours: float
    """Least hours between two trainings that the drift flow starts, as those of alerts: a tenth less is enough."""
    min_new_labels: int
    """Rows with feedback that must be newer than the last training."""
    overrides: str
    """Overrides of TrainFlow besides `feedback.use=true`, as in HYDRA_ARGS. On a cluster they come after those that it
    was deployed with."""
    deploy: bool
    """True to build a bento of a challenger that was promoted."""
    deploy_overrides: str
    """Overrides of DeployFlow, as in HYDRA_ARGS. On a cluster they come after those that it was deployed with."""

    def __post_init__(self) -> None:
        require(self.cooldown_hours >= 0, f"cooldown_hours must not be negative, got {self.cooldown_hours}")
        require(self.min_new_labels >= 1, f"min_new_labels must be at least 1, got {self.min_new_labels}")
        for name in ("overrides", "deploy_overrides"):
            for text in parse_overrides(getattr(self, name)):
                is_override = re.match(r"[+~]{0,2}[A-Za-z_][\w./@]*=", text) is not None
                require(is_override, f"{name} must be key=value overrides such as training.num_epochs=3, got {text!r}")


@dataclass(frozen=True)
class DriftConfig(Strict):
    """Configuration of DriftFlow."""

    root: ClassVar[str] = "drift"

    data: DataConfig
    """The data set of the reference pictures."""
    tracking: TrackingConfig
    window: str
    """Length of the window, which ends now: `90m`, `24h` or `7d`."""
    rows: int | None
    """Number of latest predictions to read instead of a window; null for a window."""
    since: str | None
    """Start of the window instead of its length, in UTC: `2026-11-25` or `2026-11-25T08:00`; null for none."""
    until: str | None
    """End of the window, in UTC, as for `since`; null for now."""
    catch_up: str | None
    """Longest window after runs were missed: it begins where the last run's ended. Null leaves out what was missed."""
    source: str
    """Which log: `local`, `shared`, or `auto`, the one that machines share, if FASHION_LOG names one. `firestore` is an
    older word for `shared`. An address with a slash is that of an export: `gs://bucket/predictions` or a folder."""
    workers: int
    """Tasks that share the window, each with a part of its time. The result is the same for any number. A window of a
    number of rows is read by one."""
    cron: str
    """When the flow runs on a cluster, and in the timer of `make schedule`; UTC."""
    decision: DecisionConfig
    report: ReportConfig
    alerts: AlertsConfig
    canary: Literal["decide", "report"]
    """Whether a run promotes a canary, or steps back from it, once its labels suffice; or only says so."""
    retrain: RetrainConfig
    resources: StepConfig

    def __post_init__(self) -> None:
        seconds(self.window)
        require(self.rows is None or self.rows >= 1, f"rows must be at least 1, got {self.rows}")
        require(1 <= self.workers <= 1000, f"workers must be between 1 and 1000, got {self.workers}")
        runs = max(1, runs_per_year(self.cron))
        if self.decision.runs_per_year is None:
            object.__setattr__(self, "decision", dataclasses.replace(self.decision, runs_per_year=runs))
        _check_source(self.source)
        if self.since is not None:
            moment(self.since)
            require(self.rows is None, f"give either rows or since, got {self.rows} and {self.since}")
        if self.catch_up is not None:
            seconds(self.catch_up, "catch_up")
        if self.until is not None:
            end = moment(self.until, "until")
            before = self.since is None or moment(self.since) < end
            require(before, f"since must be before until, got {self.since} and {self.until}")


def _check_source(source: str) -> None:
    is_store = "/" in source
    if is_store:
        try:
            open_store(source)
        except ValueError:
            is_store = False
    require(
        is_store or source in ("auto", "local", "shared", "firestore"),
        "source must be 'auto', 'local', 'shared', 'firestore' or the address of an export, such as "
        f"gs://bucket/predictions, s3://bucket/predictions, az://container/predictions or /folder, got {source!r}",
    )
