"""Windows that no run has looked at, after an outage: the next run's window begins where the last one's ended."""

import dataclasses
import json
from typing import Any

from fashion.config.drift import DriftConfig
from fashion.config.times import seconds
from fashion.drift.reports import state_of
from fashion.predictions.windows import Window
from fashion.storage.blobs import BlobNotFound, Store

STATE = "state/runs.json"
TOLERANCE = 0.1
"""Share of the window by which runs may be late without that being worth a remark: a timer has jitter."""


def applies(settings: DriftConfig) -> bool:
    """True if a run looks at the time up to now, as a timer's does, and not at what somebody asked for."""
    return settings.rows is None and settings.since is None and settings.until is None


def widen(window: Window, settings: DriftConfig, store: Store, *, model_name: str) -> Window:
    """The window, or a longer one that begins where the last run's ended: no time is left out.

    Args:
        window: that ends now.
        settings: how long it may become.
        store: where the end of the last run's window is stored.
        model_name: of the registered model.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    if settings.catch_up is None or not applies(settings):
        return window
    last_us = _last_end(store, model_name)
    if last_us == 0:
        return window
    earliest = window.until_us - 1_000_000 * seconds(settings.catch_up)
    return dataclasses.replace(window, since_us=min(window.since_us, max(last_us, earliest)))


def runs_were_missed(asked: Window, window: Window) -> bool:
    """True if a window is so much longer than the one asked for that no jitter of a timer explains it."""
    return asked.since_us - window.since_us > TOLERANCE * (asked.until_us - asked.since_us)


def record_end(until_us: int, settings: DriftConfig, store: Store, *, model_name: str) -> None:
    """Store where a run's window ended, once its alerts are sent.

    Args:
        until_us: microseconds since 1970.
        settings: of the run; one that somebody asked for in particular is not remembered.
        store: where it is stored.
        model_name: of the registered model.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    if applies(settings):
        store.put(state_of(STATE, model_name), json.dumps({"until_us": until_us}).encode())


def _last_end(store: Store, model_name: str) -> int:
    """Microseconds since 1970; 0 if no run ended, or the stored time is damaged."""
    try:
        content: Any = json.loads(store.get(state_of(STATE, model_name)))
        return int(content["until_us"])
    except (BlobNotFound, ValueError, KeyError, TypeError):
        return 0
