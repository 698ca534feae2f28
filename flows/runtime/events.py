"""Events of Argo, by which flows start one another on a cluster. On one machine the decorators do nothing."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

RETRAIN = "fashion-retrain"
"""The event that starts a training on labelled feedback."""

FlowDecorator = Callable[[type], type]


def on_cluster() -> bool:
    """True if other flows are started by events, not from this process."""
    return bool(os.environ.get("METAFLOW_ARGO_EVENTS_WEBHOOK_URL"))


def publish_event(name: str, payload: Mapping[str, Any]) -> str:
    """Publish an Argo event, which starts the flows that it triggers.

    Args:
        name: of the event.
        payload: values that JSON can hold.

    Returns:
        A sentence for the run's output.
    """
    from metaflow.integrations import ArgoEvent

    ArgoEvent(name).publish(payload={key: json.dumps(value) for key, value in payload.items()}, ignore_errors=False)
    return f"event {name} published"


def start_on_event(name: str) -> FlowDecorator:
    """A decorator that lets an event start a flow."""
    if not on_cluster():
        return lambda flow: flow
    from metaflow import trigger

    decorator: FlowDecorator = trigger(event=name)
    return decorator


def start_after(flow: str) -> FlowDecorator:
    """A decorator that starts a flow when another has succeeded."""
    if not on_cluster():
        return lambda flow: flow
    from metaflow import trigger_on_finish

    decorator: FlowDecorator = trigger_on_finish(flow=flow)
    return decorator


def was_started_by(name: str) -> bool:
    """True if an event of this name started the current run."""
    from metaflow import current

    trigger = getattr(current, "trigger", None)  # missing on one machine
    return trigger is not None and any(event.name == name for event in trigger.events or ())
