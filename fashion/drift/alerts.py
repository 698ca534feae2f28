"""When to send an alert: at once, when it is worse or another matter, again after a cooldown, and when it is over.

Messages that a channel did not take are stored and sent by the next run. A failure here never fails the caller.
Knows no particular channel and no particular condition.
"""

import datetime
import json
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from fashion.config.drift import AlertsConfig
from fashion.drift import cooldown
from fashion.drift.alert_channels import Channel, DeliveryError, Notice
from fashion.drift.reports import state_of
from fashion.storage.blobs import BlobNotFound, Store

STATE = "state/alerts.json"
"""Of all models, as older versions stored it: read where a model has none of its own."""
MAX_WAITING = 100
"""Undelivered messages that are stored; the oldest are dropped first."""
DIGITS = 8
"""Of a package's digest, in the names of versions."""

_logger = logging.getLogger(__name__)


class Alert(NamedTuple):
    """What is said of a condition that holds."""

    title: str
    """One line."""
    text: str
    """One or more lines."""
    rank: int = 0
    """How bad it is: one that is higher than what was last sent is sent at once."""
    matter: str = ""
    """What tells it from others of the same condition, such as the kind of a failure: another one is sent at once.
    Empty where there is only one."""


def version_key(version: str, digest: str = "") -> str:
    """The name of a version: numbers begin anew where a registry was lost, so its package's digest tells it apart.

    Args:
        version: its number.
        digest: of its package, or the first digits of it; empty where it is not known.
    """
    return f"{version}:{digest[:DIGITS]}" if digest else version


def key(condition: str, version: str = "") -> str:
    """The name of a condition.

    Args:
        condition: what holds, or does not.
        version: `version_key` of what it is about; empty for the model as a whole.
    """
    return f"{condition}:{version}" if version else condition


def notify(
    conditions: Mapping[str, Alert | None],
    channels: Sequence[Channel],
    settings: AlertsConfig,
    store: Store,
    *,
    model_name: str,
    present: Collection[str] = (),
    events: Sequence[Alert] = (),
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Send what is new, worse or another matter, what outlasts the cooldown, what is over, and what waits.

    Args:
        conditions: `key` -> what to say where the condition holds now; None where it was tested and does not hold.
            A condition that is not named stays as it was: a window with too few rows ends nothing.
        channels: where to send to.
        settings: the cooldown and the number of attempts.
        store: where the state is stored between runs.
        model_name: of the registered model: alerts on one end and silence none on another.
        present: `version_key` of those that answered in this window. A condition of another one ends where it was
            tested on these.
        events: said once, now.
        clock: returns seconds since 1970.
        pause: waits for a number of seconds.

    Returns:
        One sentence for each problem; empty if everything was delivered and stored.
    """
    now = clock()
    state, problems = _load(store, model_name)
    notices = [Notice(event.title, event.text, "event", int(now * 1e6)) for event in events]
    for name, alert in conditions.items():
        notices += _update(name, alert, state, settings, now)
    for name in _left_behind(state["open"], conditions, present):
        notices.append(_over(state["open"].pop(name), now, f"{_describe_version(name)} answers no more. "))
    for notice in notices:
        state["waiting"] += [{"channel": channel.name, **asdict(notice)} for channel in channels]
    problems += _deliver(state, channels, settings.attempts, pause)
    try:
        store.put(state_of(STATE, model_name), json.dumps(state, indent=1).encode())
    except OSError as error:
        problems.append(f"the state of alerts cannot be stored, so they may be sent again: {error}")
    for problem in problems:
        _logger.warning(problem)
    return problems


def _update(name: str, alert: Alert | None, state: dict[str, Any], settings: AlertsConfig, now: float) -> list[Notice]:
    """Record whether a condition holds, and return the message that is due now, if any."""
    parts = name.split(":")
    for earlier in (":".join(parts[:count]) for count in range(1, len(parts))):  # without the version, or its digest
        if earlier in state["open"]:
            state["open"].setdefault(name, state["open"].pop(earlier))
    known = state["open"].get(name)
    if alert is None:
        return [] if known is None else [_over(state["open"].pop(name), now)]
    if known is None:
        known, kind, title, text = {"since": now}, "begun", alert.title, alert.text
    else:
        kind = _kind(alert, known, settings.cooldown_hours, now)
        title = {"worse": f"Worse: {alert.title}", "lasts": f"Still: {alert.title}"}.get(kind, alert.title)
        text = alert.text if kind == "begun" else f"{alert.text}\nSince: {_describe_since(known['since'], now)}."
    if kind:
        sent = {
            each: when
            for each, when in known.get("sent", {}).items()
            if cooldown.is_within(settings.cooldown_hours, when, now)
        }
        state["open"][name] = {
            "since": known["since"],
            "notified": now,
            "title": alert.title,
            "rank": alert.rank,
            "sent": {**sent, alert.matter: now},
        }
    return [Notice(title, text, kind, int(now * 1e6))] if kind else []


def _kind(alert: Alert, known: Mapping[str, Any], cooldown_hours: float, now: float) -> str:
    """Which message is due on a condition that was sent before: worse, begun, lasts, or none."""
    if alert.rank > known.get("rank", alert.rank):
        return "worse"
    if alert.matter and alert.matter not in known.get("sent", {alert.matter: 0}):
        return "begun"
    return "" if cooldown.is_within(cooldown_hours, known["notified"], now) else "lasts"


def _left_behind(
    opened: Mapping[str, Any], conditions: Mapping[str, Alert | None], present: Collection[str]
) -> list[str]:
    """Open conditions of versions that have answered nothing, though the same was tested on those that did."""
    tested = {name.partition(":")[0] for name in conditions}
    answered = {*present, *(version.partition(":")[0] for version in present)}  # older names have no digest
    parts = {name: name.partition(":") for name in opened if name not in conditions}
    return [
        name for name, (what, _, version) in parts.items() if version and version not in answered and what in tested
    ]


def _describe_version(name: str) -> str:
    """The version that a condition's name is of, such as `Version 2 (0a1b2c3d)`."""
    _, version, *digest = name.split(":")
    return f"Version {version}" + "".join(f" ({each})" for each in digest)


def _over(known: Mapping[str, Any], now: float, why: str = "") -> Notice:
    hours = max(0.0, now - known["since"]) / 3600
    return Notice(f"Over: {known['title']}", f"{why}It lasted {hours:.1f} hours.", "over", int(now * 1e6))


def _describe_since(since: float, now: float) -> str:
    moment = datetime.datetime.fromtimestamp(since, datetime.UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC, {max(0.0, now - since) / 3600:.1f} hours ago"


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
        except Exception as error:  # of a channel's library: it costs no other channel; its text may hold an address
            failure = f"the channel {channel.name} failed ({type(error).__name__})"
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
    optional = {"rank": int, "sent": dict}
    return (
        has(state, open=dict, waiting=list)
        and all(has(entry, since=number, notified=number, title=str) for entry in state["open"].values())
        and all(
            isinstance(entry.get(name, kind()), kind)
            for entry in state["open"].values()
            for name, kind in optional.items()
        )
        and all(isinstance(when, number) for entry in state["open"].values() for when in entry.get("sent", {}).values())
        and all(has(entry, channel=str, title=str, text=str, kind=str, time_us=int) for entry in state["waiting"])
    )
