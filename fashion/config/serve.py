"""What a deployment can be told: which version is served, within which limits, and what is kept of a prediction."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from fashion.config.schema import DataConfig, Strict, TrackingConfig, require


@dataclass(frozen=True)
class LimitsConfig(Strict):
    """What one client, and all together, may ask of a worker."""

    body_bytes: int
    """Largest request body."""
    pixels: int
    """Largest picture, width times height; a larger one is refused before it is decoded."""
    files: int
    """Most pictures of one batch."""
    concurrency: int
    """Requests under way in one worker; the next is told to come back in a second."""
    requests_per_minute: int | None
    """Requests of one client (its key, or else its address) a worker takes; null does not count."""
    body_seconds: float
    """How long a client may take to send a body."""

    def __post_init__(self) -> None:
        for name in ("body_bytes", "pixels", "files", "concurrency"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        if self.requests_per_minute is not None:
            require(
                self.requests_per_minute >= 1, f"requests_per_minute must be at least 1, got {self.requests_per_minute}"
            )
        require(self.body_seconds > 0, f"body_seconds must be positive, got {self.body_seconds}")


@dataclass(frozen=True)
class LogConfig(Strict):
    """What is kept of each prediction, and when it counts as kept."""

    acknowledge: Literal["local", "remote"]
    """Answer once the record is on this machine's disk, or once it is in Firestore: for disks that do not last."""
    remote_seconds: float
    """With `remote`: how long an answer waits for Firestore before it trusts the disk and the outbox."""
    drain_seconds: float
    """How long a worker that ends goes on shipping what is not in Firestore yet."""
    images: bool
    """Keep what the network saw of each picture, under its sha256."""
    retention_days: float | None
    """Age from which predictions are dropped from this machine; null keeps all."""

    def __post_init__(self) -> None:
        require(self.remote_seconds > 0, f"remote_seconds must be positive, got {self.remote_seconds}")
        require(self.drain_seconds >= 0, f"drain_seconds must not be negative, got {self.drain_seconds}")
        if self.retention_days is not None:
            require(self.retention_days > 0, f"retention_days must be positive, got {self.retention_days}")


@dataclass(frozen=True)
class ServiceConfig(Strict):
    """How the service runs."""

    workers: int
    """Processes; they share the prediction log."""
    shadow: str | int | None
    """Alias or number of a version that scores every picture too, without being answered; null for none."""
    gallery: int
    """Test pictures to try the page with."""
    limits: LimitsConfig
    log: LogConfig

    def __post_init__(self) -> None:
        require(1 <= self.workers <= 64, f"workers must be between 1 and 64, got {self.workers}")
        require(0 <= self.gallery <= 200, f"gallery must be between 0 and 200, got {self.gallery}")


@dataclass(frozen=True)
class ServeConfig(Strict):
    """Everything DeployFlow can be told."""

    root: ClassVar[str] = "serve"

    data: DataConfig
    """Where the gallery's pictures are from."""
    tracking: TrackingConfig
    alias: str
    """Which version to serve, by alias."""
    version: int | None
    """Which version to serve, by number; wins over the alias."""
    serve: ServiceConfig

    def __post_init__(self) -> None:
        require(bool(self.alias.strip()), "alias must not be empty")
        require(self.version is None or self.version >= 1, f"version must be at least 1, got {self.version}")
