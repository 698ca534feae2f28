"""What the drift flow can be told: which rows it looks at, when it speaks up, and when it trains again."""

import datetime
import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fashion.config import DataConfig, Strict, TrackingConfig, parse_overrides, require

CRON_FIELDS = (
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
)
"""Name, and the smallest and largest number."""
UNITS = {"m": 60, "h": 3_600, "d": 86_400}


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
    words: str
    """Configuration words of TrainFlow, besides `feedback.use=true`, as in HYDRA_ARGS. On a cluster the flow has those
    it was deployed with."""
    deploy: bool
    """Build a bento of a challenger that was promoted."""
    deploy_words: str
    """Configuration words of DeployFlow; on a cluster likewise."""

    def __post_init__(self) -> None:
        require(self.cooldown_hours >= 0, f"cooldown_hours must not be negative, got {self.cooldown_hours}")
        require(self.min_new_labels >= 1, f"min_new_labels must be at least 1, got {self.min_new_labels}")
        for name in ("words", "deploy_words"):
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


def seconds(window: str) -> int:
    """Length of `90m`, `24h` or `7d`."""
    match = re.fullmatch(r"([1-9]\d{0,5})([mhd])", window)
    require(
        match is not None, f"window must be a number of minutes, hours or days such as 90m, 24h or 7d, got {window}"
    )
    assert match is not None
    return int(match[1]) * UNITS[match[2]]


def cron_times(line: str) -> tuple[tuple[int, ...], ...]:
    """The minutes, hours, days of the month, months and days of the week (0 is Sunday) of a line of cron."""
    fields = line.split()
    require(len(fields) == len(CRON_FIELDS), f"cron must have five fields, got {line!r}")
    times = [_times(field, *limits) for field, limits in zip(fields, CRON_FIELDS, strict=True)]
    times[-1] = {day % 7 for day in times[-1]}
    return tuple(tuple(sorted(each)) for each in times)


def _times(field: str, name: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(?:\*|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,3}))?", part)
        first, last, step = (None if text is None else int(text) for text in (match.groups() if match else (None,) * 3))
        is_span = first is None or last is not None
        begin, end = (low, high) if first is None else (first, first if last is None else last)
        sound = match is not None and low <= begin <= end <= high and (step is None or (step >= 1 and is_span))
        require(sound, f"cron: {part!r} is no {name}: numbers are {low} to {high}, as in 5, 1-5, 1,3, */2 or 1-5/2")
        found |= set(range(begin, end + 1, step or 1))
    return found


def moment(since: str) -> datetime.datetime:
    """A day or a moment, UTC where it names no other zone."""
    try:
        found = datetime.datetime.fromisoformat(since)
    except ValueError:
        raise ValueError(f"since must be a time such as 2026-11-25 or 2026-11-25T08:00, got {since}") from None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
