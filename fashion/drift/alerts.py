"""When to send an alert: once, again after a cooldown, and when it is over. Knows no particular channel.

Messages that a channel did not take are stored and sent by the next run. A failure here never fails the caller.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fashion.config.drift import AlertsConfig
from fashion.drift.alert_channels import Channel, DeliveryError, Notice
from fashion.drift.reports import state_of
from fashion.storage.blobs import BlobNotFound, Store

STATE = "state/alerts.json"
"""Of all models, as older versions stored it: read where a model has none of its own."""
MAX_WAITING = 100
"""Undelivered messages that are stored; the oldest are dropped first."""

_logger = logging.getLogger(__name__)


def notify(
    conditions: Mapping[str, tuple[str, str] | None],
    channels: Sequence[Channel],
    settings: AlertsConfig,
    store: Store,
    *,
    model_name: str,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Send what is new, what outlasts the cooldown, what is over, and what could not be sent before.

    Args:
        conditions: name -> title and text where the condition holds now; None where it was tested and does not hold.
            A condition that is not named stays as it was: a window with too few rows ends nothing.
        channels: where to send to.
        settings: the cooldown and the number of attempts.
        store: where the state is stored between runs.
        model_name: of the registered model: alerts on one end and silence none on another.
        clock: returns seconds since 1970.
        pause: waits for a number of seconds.

    Returns:
        One sentence for each problem; empty if everything was delivered and stored.
    """
    now = clock()
    state, problems = _load(store, model_name)
    for name, condition in conditions.items():
        notice = _update(name, condition, state, settings, now)
        if notice is not None:
            state["waiting"] += [{"channel": channel.name, **asdict(notice)} for channel in channels]
    problems += _deliver(state, channels, settings.attempts, pause)
    try:
        store.put(state_of(STATE, model_name), json.dumps(state, indent=1).encode())
    except OSError as error:
        problems.append(f"the state of alerts cannot be stored, so they may be sent again: {error}")
    for problem in problems:
        _logger.warning(problem)
    return problems


def _update(
    name: str, condition: tuple[str, str] | None, state: dict[str, Any], settings: AlertsConfig, now: float
) -> Notice | None:
    """Record whether a condition holds, and return the message that is due now, if any."""
    known = state["open"].get(name)
    if condition is None:
        if known is None:
            return None
        del state["open"][name]
        hours = max(0.0, now - known["since"]) / 3600
        return Notice(f"Over: {known['title']}", f"It lasted {hours:.1f} hours.", "over", int(now * 1e6))
    title, text = condition
    if known is None:
        state["open"][name] = {"since": now, "notified": now, "title": title}
        return Notice(title, text, "begun", int(now * 1e6))
    # The lower bound: a clock that was set back must not silence alerts until it catches up.
    if 0 <= now - known["notified"] < 3600 * settings.cooldown_hours:
        return None
    state["open"][name] = {**known, "notified": now, "title": title}
    return Notice(f"Still: {title}", text, "lasts", int(now * 1e6))


def _deliver(
    state: dict[str, Any], channels: Sequence[Channel], attempts: int, pause: Callable[[float], None]
) -> list[str]:
    """Send what waits, in order; leave in the state what failed, and return the problems."""
    by_name = {channel.name: channel for channel in channels}
    waiting, problems = [], []
    broken: set[str] = set()
    for entry in state["waiting"]:
        channel = by_name.get(entry["channel"])
        if channel is None:  # no longer configured
            continue
        if channel.name not in broken:
            notice = Notice(**{key: entry[key] for key in ("title", "text", "kind", "time_us")})
            failure = _attempt(channel, notice, attempts, pause)
            if failure is None:
                continue
            problems.append(f"{failure}; it is tried again in the next run")
            broken.add(channel.name)
        waiting.append(entry)
    state["waiting"] = waiting[-MAX_WAITING:]
    return problems


def _attempt(channel: Channel, notice: Notice, attempts: int, pause: Callable[[float], None]) -> str | None:
    """Send, and return why the last attempt failed, or None."""
    failure = None
    for attempt in range(attempts):
        if attempt:
            pause(min(2.0 ** (attempt - 1), 30.0))
        try:
            channel.send(notice)
            return None
        except DeliveryError as error:
            failure = str(error)
    return failure


def _load(store: Store, model_name: str) -> tuple[dict[str, Any], list[str]]:
    """The stored state, or an empty one and why the stored one cannot be used."""
    empty: dict[str, Any] = {"open": {}, "waiting": []}
    try:
        try:
            stored = store.get(state_of(STATE, model_name))
        except BlobNotFound:
            stored = store.get(STATE)
        state = _with_current_keys(json.loads(stored))
        if _is_state(state):
            return state, []
        problem = "its fields are not as expected"
    except BlobNotFound:
        return empty, []
    except (OSError, ValueError) as error:
        problem = str(error)
    return empty, [f"the state of alerts cannot be read ({problem}), so they may be sent again"]


def _with_current_keys(state: Any) -> Any:
    """A state in which the earlier name of a field, `told`, is replaced by `notified`."""
    entries = state.get("open") if isinstance(state, dict) else None
    for entry in entries.values() if isinstance(entries, dict) else ():
        if isinstance(entry, dict) and "told" in entry:
            entry.setdefault("notified", entry.pop("told"))
    return state


def _is_state(state: Any) -> bool:
    def has(entry: Any, **kinds: Any) -> bool:
        return isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())

    number = (int, float)
    return (
        has(state, open=dict, waiting=list)
        and all(has(entry, since=number, notified=number, title=str) for entry in state["open"].values())
        and all(has(entry, channel=str, title=str, text=str, kind=str, time_us=int) for entry in state["waiting"])
    )
