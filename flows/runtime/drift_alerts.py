"""Alerts of DriftFlow: what its steps send, to the channels that the environment names."""

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fashion.config.compose import compose, load_as, parse_overrides
from fashion.config.drift import DriftConfig
from fashion.home import current_home
from runtime import chaining, launch

if TYPE_CHECKING:
    from fashion.drift.alerts import Alert
    from fashion.drift.result import DriftResult
    from fashion.evaluation.canary import Outcome


def send_of_window(
    reported: "Sequence[tuple[DriftResult, str]]",
    quarantined: Mapping[str, str],
    settings: DriftConfig,
    canaries: "Sequence[Outcome]" = (),
) -> None:
    """Send what is due on a window, on a canary, and on what waits for people.

    Args:
        reported: the result and the report's id of each version in it, that of the latest row last.
        quarantined: sources of feedback -> why.
        settings: which conditions people are alerted to.
        canaries: the outcome of each.
    """
    from fashion.drift import alerts, canary, messages, reports, retraining, waiting
    from fashion.registry import versions
    from fashion.storage.address import open_store

    address, service, on = current_home().reports, os.environ.get("FASHION_URL"), settings.alerts.on
    model, store = settings.tracking.registered_model, open_store(address)
    conditions = messages.of_window(
        reported, on, model=model, link=lambda report_id: reports.link(report_id, reports=address, service=service)
    )
    known = versions.list_versions(model)
    waits = {"quarantine": waiting.quarantine(quarantined), "approval": waiting.approval(known, model=model)}
    conditions |= {name: alert for name, alert in waits.items() if name in on}
    ended = waiting.training_elsewhere(known, store, model=model, now_s=time.time())
    events = [ended] if ended is not None and "training" in on else []
    present = [alerts.version_key(result.model_version, result.model_digest) for result, _ in reported if result.rows]
    if "canary" in on:
        lasting = [each for each in canaries if each.ending in ("waits", "failed")]
        conditions["canary"] = canary.alert(lasting[-1], model_name=model) if lasting else None
        events += [canary.alert(each, model_name=model) for each in canaries if each.has_ended]
    _send({"problem": None, **conditions}, settings, present=present, events=events)
    if ended is not None:
        retraining.record_told(store, model_name=model)


def send_of_training(done: "chaining.Outcome", settings: DriftConfig) -> None:
    """Alert the outcome of a training that drift started, once."""
    from fashion.drift import messages
    from fashion.storage.blobs import StoreUnavailable

    if "training" not in settings.alerts.on:
        return
    event = messages.training(
        done.sentence,
        model=settings.tracking.registered_model,
        ended_well=done.ended_well,
        promoted=done.promoted,
        command=done.command,
        awaits_approval=done.awaits_approval,
    )
    try:
        _send({}, settings, events=[event])
    except StoreUnavailable as unavailable:  # what was trained is done, whether anybody hears of it or not
        print(f"no message is sent: {unavailable}", file=sys.stderr, flush=True)


def exit_with_alert(settings: DriftConfig) -> "contextlib.AbstractContextManager[None]":
    """End the task with one sentence if a log, a store or the registry fails, and send an alert if configured."""
    from fashion.config.schema import ConfigError
    from fashion.drift import messages
    from fashion.drift.accepted import DamagedRows
    from fashion.model import package
    from fashion.predictions.record import LogUnavailable
    from fashion.registry import versions
    from fashion.storage.blobs import StoreUnavailable

    def alert(error: Exception) -> None:
        if "problem" in settings.alerts.on:
            try:
                _send({"problem": messages.problem(str(error))}, settings)
            except StoreUnavailable as unavailable:  # it says whether people were alerted already
                print(f"no alert is sent: {unavailable}", flush=True)

    expected = (
        *(ConfigError, LogUnavailable, StoreUnavailable, DamagedRows, package.DamagedPackage),
        *versions.ERRORS,
    )
    return launch.exit_on(*expected, first=alert)


def check_what_follows(settings: DriftConfig) -> None:
    """Check the overrides of flows that may be started, and name the addresses of alerts that cannot be used.

    Raises:
        fashion.config.schema.ConfigError: an override is wrong. A wrong address only costs itself.
    """
    from fashion.config.serve import ServeConfig
    from fashion.config.train import TrainConfig
    from fashion.drift import alert_channels

    model = settings.tracking.registered_model
    load_as(TrainConfig, compose(chaining.train_overrides(settings.retrain, model)))
    deployed = parse_overrides(chaining.deploy_overrides(settings.retrain.deploy_overrides, model))
    load_as(ServeConfig, compose(deployed, root=ServeConfig.root))
    for problem in alert_channels.from_environment(os.environ, timeout_s=settings.alerts.timeout_s).problems:
        print(f"warning: {problem}", file=sys.stderr, flush=True)


def _send(
    conditions: "Mapping[str, Alert | None]",
    settings: DriftConfig,
    *,
    present: Sequence[str] = (),
    events: "Sequence[Alert]" = (),
) -> None:
    """Send to every channel that can be used, and say there which cannot."""
    from fashion.drift import alert_channels, alerts, messages
    from fashion.storage.address import open_store

    found = alert_channels.from_environment(os.environ, timeout_s=settings.alerts.timeout_s)
    of_channels = {"channel": messages.channels(found.problems)} if "channel" in settings.alerts.on else {}
    alerts.notify(
        {**conditions, **of_channels},
        found.usable,
        settings.alerts,
        open_store(current_home().reports),
        model_name=settings.tracking.registered_model,
        present=present,
        events=events,
    )
