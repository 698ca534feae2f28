"""Configuration of `fashion gc`: after which time what a machine no longer needs may go."""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from fashion.config.schema import Strict, require


@dataclass(frozen=True)
class GcConfig(Strict):
    """Ages in days since the last change. Whatever its age, nothing goes that was changed in the last 24 hours."""

    root: ClassVar[str] = "gc"

    checkpoints_days: float
    """Checkpoints of trainings, which only resuming them needs."""
    studies_days: float
    """Studies of tuning, whose trials MLflow has too; the age of one in a database counts since its last trial."""
    failed_runs_days: float
    """MLflow runs that failed or were killed, and runs that were deleted in the UI, with their artifacts."""
    bentos_days: float
    """Bentos, and the copies of models that they hold; versions in the registry stay."""
    bentos_kept: int
    """The newest bentos stay, whatever their age."""
    flow_runs_days: float
    """Artifacts, logs and cards of Metaflow runs."""
    damaged_days: float
    """Damaged bentos and models that were put aside."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value >= 0, f"{field.name} must not be negative, got {value}")
