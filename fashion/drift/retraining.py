"""When to train again: a condition must hold, enough feedback must be new, and the cooldown over. Trains nothing.

Feedback is new until a training has learnt from it: a training that failed leaves it new.
"""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fashion.config.drift import RetrainConfig
from fashion.drift.cooldown import is_within
from fashion.drift.reports import state_of
from fashion.images import image_store
from fashion.predictions.labelled import Believed, why_unusable
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
    believed: Believed,
    images: Store,
    clock: Callable[[], float] = time.time,
) -> RetrainDecision:
    """Decide whether to train now.

    Args:
        conditions: those that hold, as in `fashion.drift.result.DriftResult.conditions`.
        labelled: rows with feedback.
        settings: when to train.
        store: where the time of the last training is stored.
        model_name: of the registered model; rows of others do not count.
        believed: which labels may be learnt.
        images: where pictures are stored: rows without theirs do not count.
        clock: returns seconds since 1970.

    Raises:
        fashion.storage.blobs.StoreUnavailable: a store cannot be read.
    """
    if not settings.enabled:
        return RetrainDecision(False, "retraining is off: retrain.enabled=true turns it on")
    reasons = ", ".join(sorted(set(conditions) & set(settings.on)))
    if not reasons:
        return RetrainDecision(False, f"no condition for it holds ({', '.join(settings.on)})")
    state, now = _read(store, model_name), clock()
    if is_within(settings.cooldown_hours, state.began, now):
        ago = f"{(now - state.began) / 3600:.1f} hours ago"
        return RetrainDecision(
            False,
            f"{reasons}, but the last training began {ago}, within the cooldown of {settings.cooldown_hours:g}",
        )
    since_us = int(state.learnt * 1e6) if state.learnt <= now else 0  # a clock was set back: all feedback is new
    new, left_out = _count_new(
        labelled, since_us, settings.min_new_labels, model_name=model_name, believed=believed, images=images
    )
    if new < settings.min_new_labels:
        others = "".join(f"; {count:,} more are {why}" for why, count in left_out.most_common())
        return RetrainDecision(
            False,
            f"{reasons}, but only {new:,} rows with feedback are new: {settings.min_new_labels:,} are needed{others}",
        )
    return RetrainDecision(True, f"{reasons}, and at least {new:,} rows with feedback are new")


def record_start(
    store: Store, *, model_name: str, elsewhere: bool = False, clock: Callable[[], float] = time.time
) -> None:
    """Store that a training of a registered model begins now. Its feedback stays new until `record_learnt`.

    Args:
        store: as for `decide`.
        model_name: of the registered model.
        elsewhere: whether nobody waits for its end: then a later run tells it.
        clock: returns seconds since 1970.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    _write(store, model_name, State(clock(), _read(store, model_name).learnt, elsewhere))


def awaited_since(store: Store, *, model_name: str) -> float | None:
    """When the training began whose end nobody has told yet, seconds since 1970; None if there is none.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    state = _read(store, model_name)
    return state.began if state.awaited else None


def record_told(store: Store, *, model_name: str) -> None:
    """Store that the end of that training was told.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    _write(store, model_name, dataclasses.replace(_read(store, model_name), awaited=False))


def record_learnt(store: Store, collected: float, *, model_name: str) -> None:
    """Store that a training of a registered model has learnt from feedback and was judged.

    Args:
        store: as for `decide`.
        collected: when it collected the feedback, seconds since 1970.
        model_name: of the registered model.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    before = _read(store, model_name)
    _write(store, model_name, dataclasses.replace(before, learnt=max(before.learnt, collected)))


@dataclass(frozen=True)
class State:
    """Of the trainings of one registered model. Times in seconds since 1970; 0 for never."""

    began: float = 0.0
    """When the last one began."""
    learnt: float = 0.0
    """When the last one that succeeded collected its feedback."""
    awaited: bool = False
    """Whether the end of the last one is still to be told."""


def _count_new(
    labelled: Iterable[LoggedPrediction],
    since_us: int,
    enough: int,
    *,
    model_name: str,
    believed: Believed,
    images: Store,
) -> tuple[int, "Counter[str]"]:
    """Count rows that are new and can be learnt, up to `enough`; and the others by why they cannot."""
    new, left_out = 0, Counter[str]()
    for row in labelled:
        said = row.judgement
        if said is None or said.time_us <= since_us:
            continue
        why_not = why_unusable(row, model_name=model_name, num_classes=None) or believed.use(row).why_not
        if not why_not and not image_store.is_stored(images, row.record.image_sha256):
            why_not = "without a stored picture (serve.log.images=true stores them)"
        left_out[why_not] += 1
        new = left_out[""]
        if new >= enough:
            break
    del left_out[""]
    return new, left_out


def _read(store: Store, model_name: str) -> State:
    """State() if nothing is stored, or it is damaged. Older versions stored one time, of a training that began."""
    for name in (state_of(STATE, model_name), STATE):
        try:
            content: Any = json.loads(store.get(name))
            learnt = float(content.get("learnt", content["began"]))
            return State(float(content["began"]), learnt, bool(content.get("awaited", False)))
        except BlobNotFound:
            continue
        except (ValueError, KeyError, TypeError, AttributeError):
            return State()
    return State()


def _write(store: Store, model_name: str, state: State) -> None:
    store.put(state_of(STATE, model_name), json.dumps(dataclasses.asdict(state)).encode())
