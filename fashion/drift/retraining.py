"""When to train again: a condition must hold, enough feedback must be new, and the cooldown over. Trains nothing."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fashion.config.drift import RetrainConfig
from fashion.drift.reports import state_of
from fashion.predictions.labelled import TEST_ROWS
from fashion.predictions.record import LoggedPrediction
from fashion.storage.blobs import BlobNotFound, Store

STATE = "state/retraining.json"
"""Of all models, as older versions stored it: read where a model has none of its own."""


@dataclass(frozen=True)
class RetrainDecision:
    """Whether to train, and why."""

    train: bool
    reason: str
    """One sentence, for a person."""


def decide(
    conditions: Iterable[str],
    labelled: Iterable[LoggedPrediction],
    settings: RetrainConfig,
    store: Store,
    *,
    model_name: str,
    clock: Callable[[], float] = time.time,
) -> RetrainDecision:
    """Decide whether to train now.

    Args:
        conditions: those that hold, as in `fashion.drift.result.DriftResult.conditions`.
        labelled: rows with feedback.
        settings: when to train.
        store: where the time of the last training is stored.
        model_name: of the registered model; rows of others do not count.
        clock: returns seconds since 1970.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    if not settings.enabled:
        return RetrainDecision(False, "retraining is off: retrain.enabled=true turns it on")
    reasons = sorted(set(conditions) & set(settings.on))
    if not reasons:
        return RetrainDecision(False, f"no condition for it holds ({', '.join(settings.on)})")
    last = _last_start(store, model_name)
    hours = (clock() - last) / 3600
    if 0 <= hours < settings.cooldown_hours:
        return RetrainDecision(
            False,
            f"{', '.join(reasons)}, but the last training began {hours:.1f} hours ago, within the cooldown of "
            f"{settings.cooldown_hours:g}",
        )
    since_us = int(last * 1e6) if hours >= 0 else 0  # after a clock was set back, all feedback counts as new
    mine = (row for row in labelled if row.record.model_name == model_name)
    new = sum(row.feedback[-1].time_us > since_us and row.feedback[-1].source != TEST_ROWS for row in mine)
    if new < settings.min_new_labels:
        return RetrainDecision(
            False,
            f"{', '.join(reasons)}, but only {new:,} rows with feedback are new: "
            f"{settings.min_new_labels:,} are needed",
        )
    return RetrainDecision(True, f"{', '.join(reasons)}, and {new:,} rows with feedback are new")


def record_start(store: Store, *, model_name: str, clock: Callable[[], float] = time.time) -> None:
    """Store that a training of a registered model begins now.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    store.put(state_of(STATE, model_name), json.dumps({"began": clock()}).encode())


def _last_start(store: Store, model_name: str) -> float:
    """Seconds since 1970; 0 if there was none, or the stored time is damaged."""
    for name in (state_of(STATE, model_name), STATE):
        try:
            content: Any = json.loads(store.get(name))
            return float(content["began"])
        except BlobNotFound:
            continue
        except (ValueError, KeyError, TypeError):
            return 0.0
    return 0.0
