"""Fixtures of the log's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fashion.predictions.log import PredictionLog


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    """A log that ships somewhere: one that does not queues nothing."""
    with PredictionLog(tmp_path / "log.db") as log:
        log.outbox.ship_to("firestore://p")
        yield log
