"""When to train again: something must be wrong, something new must be known, and not too often. Trains nothing."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fashion.config.drift import RetrainConfig
from fashion.predictions.labelled import TEST_ROWS
from fashion.predictions.record import LoggedPrediction
from fashion.storage.blobs import BlobNotFound, Store

STATE = "state/retraining.json"


@dataclass(frozen=True)
class Answer:
    """Whether to train, and why or why not."""

    train: bool
    reason: str


def due(
    conditions: Iterable[str],
    judged: Iterable[LoggedPrediction],
    settings: RetrainConfig,
    store: Store,
    *,
    clock: Callable[[], float] = time.time,
) -> Answer:
    """Decide.

    Args:
        conditions: what was found, as `fashion.drift.result.DriftResult.conditions`.
        judged: rows with feedback.
        store: where the last training is remembered.
        clock: seconds since 1970.
    """
    if not settings.enabled:
        return Answer(False, "retraining is off: retrain.enabled=true turns it on")
    found = sorted(set(conditions) & set(settings.on))
    if not found:
        return Answer(False, f"nothing that asks for it was found ({', '.join(settings.on)})")
    last = _last(store)
    hours = (clock() - last) / 3600
    if 0 <= hours < settings.cooldown_hours:
        return Answer(
            False,
            f"{', '.join(found)}, but the last training began {hours:.1f} hours ago: one is enough in "
            f"{settings.cooldown_hours:g}",
        )
    since_us = int(last * 1e6) if hours >= 0 else 0  # a clock that was set back makes nothing old
    news = sum(row.feedback[-1].time_us > since_us and row.feedback[-1].source != TEST_ROWS for row in judged)
    if news < settings.min_new_labels:
        return Answer(
            False,
            f"{', '.join(found)}, but only {news:,} rows with feedback are new: "
            f"{settings.min_new_labels:,} are needed to learn from",
        )
    return Answer(True, f"{', '.join(found)}, and {news:,} rows with feedback to learn from")


def remember(store: Store, *, clock: Callable[[], float] = time.time) -> None:
    """Note that a training begins now."""
    store.put(STATE, json.dumps({"began": clock()}).encode())


def _last(store: Store) -> float:
    """Seconds since 1970; 0 for never, and where nobody can tell."""
    try:
        content: Any = json.loads(store.get(STATE))
        return float(content["began"])
    except (BlobNotFound, ValueError, KeyError, TypeError):
        return 0.0
