"""What the drift flow can be told: which rows it looks at, when it speaks up, and when it trains again."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fashion.config.compose import parse_overrides
from fashion.config.schema import DataConfig, Strict, TrackingConfig, require
from fashion.config.times import cron_times, moment, seconds


@dataclass(frozen=True)
class DecisionConfig(Strict):
    """How a window is compared with the model's reference."""

    alpha: float
    """Share of the windows without drift that may be called drift."""
    min_rows: int
    """Rows from which a window is judged at all."""
    min_labels: int
    """Rows with feedback from which their accuracy is judged."""
    resplits: int
    """Windows drawn from the reference itself, to measure how often the decision would be wrong on this model."""

    def __post_init__(self) -> None:
        require(0 < self.alpha < 0.5, f"alpha must be in (0, 0.5), got {self.alpha}")
        require(self.min_rows >= 50, f"min_rows must be at least 50, got {self.min_rows}: fewer rows tell nothing")
        require(self.min_labels >= 10, f"min_labels must be at least 10, got {self.min_labels}")
        require(self.resplits >= 0, f"resplits must not be negative, got {self.resplits}")


@dataclass(frozen=True)
class ReportConfig(Strict):
    """What is drawn. Nothing here changes what is decided."""

    rows: int
    """Rows of the window that are drawn, chosen at random where there are more."""
    examples: int
    """Pictures of the most unusual rows."""
    history: int
    """Past windows that are shown."""

    def __post_init__(self) -> None:
        require(self.rows >= 100, f"rows must be at least 100, got {self.rows}")
        require(0 <= self.examples <= 100, f"examples must be between 0 and 100, got {self.examples}")
        require(self.history >= 0, f"history must not be negative, got {self.history}")


@dataclass(frozen=True)
class AlertsConfig(Strict):
    """When people are told. To whom: FASHION_WEBHOOK and FASHION_SMTP; the flow's own output always."""

    on: tuple[Literal["drift", "harmful", "decline", "problem"], ...]
    """drift: any; harmful: drift that is likely to cost accuracy; decline: feedback says that accuracy fell;
    problem: the flow could not do its work."""
    cooldown_hours: float
    """How long after a notice the same condition is not told again, though it lasts."""
    attempts: int
    """Times a channel is tried in one run. What fails still is tried in the next."""
    timeout_s: float

    def __post_init__(self) -> None:
        require(self.cooldown_hours >= 0, f"cooldown_hours must not be negative, got {self.cooldown_hours}")
        require(self.attempts >= 1, f"attempts must be at least 1, got {self.attempts}")
        require(0 < self.timeout_s < 3600, f"timeout_s must be positive and below an hour, got {self.timeout_s}")


@dataclass(frozen=True)
class RetrainConfig(Strict):
    """When a new model is trained, on the original data and on labelled feedback."""

    enabled: bool
    on: tuple[Literal["drift", "harmful", "decline"], ...]
    """As for alerts."""
    cooldown_hours: float
    """Least time between two trainings that were started here."""
    min_new_labels: int
    """Rows with feedback that must have come in since the last one: without news nothing is learnt."""
    overrides: str
    """Configuration words of TrainFlow, besides `feedback.use=true`, as in HYDRA_ARGS. On a cluster the flow has those
    it was deployed with."""
    deploy: bool
    """Build a bento of a challenger that was promoted."""
    deploy_overrides: str
    """Configuration words of DeployFlow; on a cluster likewise."""

    def __post_init__(self) -> None:
        require(self.cooldown_hours >= 0, f"cooldown_hours must not be negative, got {self.cooldown_hours}")
        require(self.min_new_labels >= 1, f"min_new_labels must be at least 1, got {self.min_new_labels}")
        for name in ("overrides", "deploy_overrides"):
            for word in parse_overrides(getattr(self, name)):
                is_word = re.match(r"[+~]{0,2}[A-Za-z_][\w./@]*=", word) is not None
                require(is_word, f"{name} must be key=value words such as training.num_epochs=3, got {word!r}")


@dataclass(frozen=True)
class DriftConfig(Strict):
    """Everything DriftFlow can be told."""

    root: ClassVar[str] = "drift"

    data: DataConfig
    """Where the pictures of reference rows are from."""
    tracking: TrackingConfig
    window: str
    """Latest time to look at: `90m`, `24h` or `7d`."""
    rows: int | None
    """Look at the latest so many predictions instead."""
    since: str | None
    """Look at all from then on instead: `2026-11-25` or `2026-11-25T08:00`, UTC."""
    source: Literal["auto", "local", "firestore"]
    """Which log; auto: Firestore, with the rows of all machines, where FASHION_FIRESTORE names one."""
    cron: str
    """When the flow runs on a cluster, and what `make schedule` writes; UTC."""
    decision: DecisionConfig
    report: ReportConfig
    alerts: AlertsConfig
    retrain: RetrainConfig

    def __post_init__(self) -> None:
        seconds(self.window)
        require(self.rows is None or self.rows >= 1, f"rows must be at least 1, got {self.rows}")
        cron_times(self.cron)
        if self.since is not None:
            moment(self.since)
            require(self.rows is None, f"give either rows or since, got {self.rows} and {self.since}")
