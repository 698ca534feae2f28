"""Configuration of DeployFlow: which version is served, its limits, and what is logged of a prediction."""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from fashion.config.deploy import DeployConfig
from fashion.config.schema import DataConfig, StepConfig, Strict, TrackingConfig, require

WORKER_BYTES = 256 * 1024 * 1024
"""Of a worker's memory: the process with its model, and requests that are too small or too short-lived to count."""


@dataclass(frozen=True)
class LimitsConfig(Strict):
    """What one client, and all clients together, may request from a worker."""

    body_bytes: int
    """Largest request body, in bytes."""
    pixels: int
    """Largest picture, width times height; a larger one is rejected before it is decoded."""
    files: int
    """Most pictures in one batch request."""
    concurrency: int
    """Requests that one worker handles at once; others get 503 with Retry-After."""
    requests_per_minute: int | None
    """Requests that the service accepts from one client (its key, or else its address), all workers of a machine
    together; null for no limit. A batch counts as its files, a table of feedback as its rows."""
    feedback_per_minute: int | None
    """Labels that the service accepts from one client as feedback, counted alike; null for no limit. A table of more
    rows is accepted once, and the next label after as many minutes as it fills, an hour at most."""
    body_seconds: float
    """Seconds that a client may take to send a body."""
    memory_bytes: int
    """Memory of one worker, in bytes: uploads wait for each other, and a picture that needs more is rejected."""

    def __post_init__(self) -> None:
        for name in ("body_bytes", "pixels", "files", "concurrency"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        for name in ("requests_per_minute", "feedback_per_minute"):
            limit = getattr(self, name)
            require(limit is None or limit >= 1, f"{name} must be at least 1, or null for no limit, got {limit}")
        least = WORKER_BYTES + 4 * self.body_bytes
        require(
            self.memory_bytes >= least,
            f"memory_bytes must be at least {least}, {WORKER_BYTES} for the process and 4 bodies of body_bytes, got "
            f"{self.memory_bytes}",
        )
        require(self.body_seconds > 0, f"body_seconds must be positive, got {self.body_seconds}")


@dataclass(frozen=True)
class LogConfig(Strict):
    """What is stored of each prediction, and when it counts as stored."""

    acknowledge: Literal["local", "remote"]
    """Respond once the record is on this machine's disk, or in the shared log, for disks that are not durable."""
    remote_seconds: float
    """With `remote`: seconds that a response waits for the shared log before it relies on the disk and the outbox."""
    drain_seconds: float
    """Seconds that a worker takes at its end to ship records that are not in the shared log yet."""
    images: bool
    """True to store each picture as the network saw it, under its sha256."""
    retention_days: float | None
    """Days after which predictions are deleted from this machine; null keeps all."""

    def __post_init__(self) -> None:
        require(self.remote_seconds > 0, f"remote_seconds must be positive, got {self.remote_seconds}")
        require(self.drain_seconds >= 0, f"drain_seconds must not be negative, got {self.drain_seconds}")
        if self.retention_days is not None:
            require(self.retention_days > 0, f"retention_days must be positive, got {self.retention_days}")


@dataclass(frozen=True)
class ServiceConfig(Strict):
    """How the service runs."""

    workers: int
    """Processes, which share the prediction log."""
    shadow: str | int | None
    """Alias or number of a version that predicts every picture too, for the log only; null for none."""
    canary: str | int | None
    """Alias or number of a version that answers a share of the clients, to compare it with the champion; null for
    none."""
    canary_share: float
    """Share of the clients that the canary answers, in (0, 0.5]; of the pictures where clients send no X-Client."""
    canary_margin: float | None
    """Accuracy that a canary may lose and still count as not worse, in [0, 1); null for `gate.margin`."""
    gallery: int
    """Number of test pictures on the page."""
    unknown: Literal["flag", "refuse"]
    """What becomes of a picture that is unlike what the model has learnt: its answer says so, or it gets none."""
    unlike_share: float
    """A picture is unlike what was learnt if all but this share of the held-out pictures are more usual: of pictures
    as in training, this share is flagged. 0 flags none."""
    feedback: Literal["loopback", "open"]
    """Who may give feedback where FASHION_FEEDBACK_KEYS holds no key: nobody but this machine, or anybody."""
    review: Literal["key", "open"]
    """Who may label on /review, by which models are judged: those with a key of FASHION_REVIEW_KEYS, or anybody."""
    review_checks: float
    """About this share of what /review shows, in [0, 0.25], is pictures of the data set whose class is known, which
    check who reviews; up to twice as much where only pictures drawn at random are left to show. 0 shows none."""
    coverage: float
    """Share of the cases in which the `prediction_set` of an answer is to hold the true class, of each class, in
    whole thousandths. DeployFlow stores it with the version, and drift watches that."""
    limits: LimitsConfig
    log: LogConfig

    def __post_init__(self) -> None:
        thousandths = 1000 * self.coverage
        require(
            0 < self.coverage < 1 and abs(thousandths - round(thousandths)) < 1e-6,
            f"coverage must be in (0, 1) and have at most three decimals, got {self.coverage}",
        )
        require(0 < self.canary_share <= 0.5, f"canary_share must be in (0, 0.5], got {self.canary_share}")
        if self.canary_margin is not None:
            require(0 <= self.canary_margin < 1, f"canary_margin must be in [0, 1), got {self.canary_margin}")
        require(1 <= self.workers <= 64, f"workers must be between 1 and 64, got {self.workers}")
        require(0 <= self.gallery <= 200, f"gallery must be between 0 and 200, got {self.gallery}")
        require(0 <= self.review_checks <= 0.25, f"review_checks must be in [0, 0.25], got {self.review_checks}")
        require(0 <= self.unlike_share < 1, f"unlike_share must be in [0, 1), got {self.unlike_share}")


@dataclass(frozen=True)
class ServeConfig(Strict):
    """Configuration of DeployFlow."""

    root: ClassVar[str] = "serve"

    data: DataConfig
    """The data set of the gallery."""
    tracking: TrackingConfig
    alias: str
    """Alias of the version to serve."""
    version: int | None
    """Number of the version to serve, instead of the alias; null for the alias."""
    serve: ServiceConfig
    deploy: DeployConfig
    resources: StepConfig

    def __post_init__(self) -> None:
        require(bool(self.alias.strip()), "alias must not be empty")
        require(self.version is None or self.version >= 1, f"version must be at least 1, got {self.version}")


def bento_name(model: str) -> str:
    """Name of a model and of its bentos in BentoML's stores: small ASCII letters and digits, and `_.-` between."""
    return re.sub(r"[^a-z0-9_.-]", "-", model.lower()).strip("-._") or "classifier"
