"""Events of Argo, by which flows start one another on a cluster. On one machine the decorators do nothing."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PROJECT = "fashion"
"""Metaflow's name for the flows that belong together: it is in the names of templates and of a branch's events."""
RETRAIN = "fashion-retrain"
"""The event that starts a training on labelled feedback."""
DEPLOY = "fashion-deploy"
"""The event that starts the building of a bento of a new champion. Metaflow's own event at the end of a flow would
start it after a rejected challenger too, and carries no configuration."""

FlowDecorator = Callable[[type], type]


class EventsUnavailable(RuntimeError):
    """There is no Argo Events to publish to. The message names the variable that is missing."""


def in_pod() -> bool:
    """True in a task that runs on a cluster, where another flow is started by an event, not from this process."""
    return bool(os.environ.get("METAFLOW_KUBERNETES_WORKLOAD"))


def webhook() -> str | None:
    """Address that events are published to: of the environment, or of Metaflow's configuration file."""
    from metaflow.metaflow_config import ARGO_EVENTS_WEBHOOK_URL

    address: str | None = ARGO_EVENTS_WEBHOOK_URL
    return address


def event_name(name: str) -> str:
    """Return the name of an event as the current branch publishes it: production's has no prefix."""
    from metaflow import current, namespaced_event_name

    branch = current.get("branch_name")
    if branch is None or branch == "prod":
        return name
    branched: str = namespaced_event_name(name)()
    return branched


def publish(name: str, payload: Mapping[str, Any]) -> str:
    """Publish an Argo event, which starts the flows of this branch that it triggers.

    Args:
        name: of the event, without the branch.
        payload: the values of the triggered flow's parameters, and others that JSON can hold.

    Returns:
        A sentence for the run's output.

    Raises:
        EventsUnavailable: no address is configured.
        metaflow.plugins.argo.argo_events.ArgoEventException: the address does not answer.
    """
    from metaflow.integrations import ArgoEvent

    if not webhook():
        raise EventsUnavailable(
            f"event {name} cannot be published: METAFLOW_ARGO_EVENTS_WEBHOOK_URL is not set; "
            "`fashion cluster check` lists what a cluster needs"
        )
    full_name = event_name(name)
    ArgoEvent(full_name).publish(payload=dict(payload), ignore_errors=False)
    return f"event {full_name} published"


def start_on(name: str, parameters: Sequence[str]) -> FlowDecorator:
    """A decorator that lets an event start a flow.

    Args:
        name: of the event, without the branch.
        parameters: of the flow, each taken from the field of this name of the event's payload where it has one.
    """
    if not webhook():
        return lambda flow: flow
    from metaflow import trigger

    # The branch is known once the command line is parsed.
    event = {"name": lambda _: event_name(name), "parameters": {each: each for each in parameters}}
    decorator: FlowDecorator = trigger(event=event)
    return decorator


def was_started_by(name: str) -> bool:
    """True if an event of this name started the current run."""
    from metaflow import current

    trigger = getattr(current, "trigger", None)  # missing on one machine
    return trigger is not None and any(event.name == event_name(name) for event in trigger.events or ())
