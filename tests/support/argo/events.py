"""Argo Events' webhook and sensors: an event that is posted starts each template whose sensor waits for it."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from support.argo.expressions import UnknownExpression
from support.web import QuietHandler, serving

DATA_TEMPLATE = re.compile(
    r'\{\{ if \(hasKey \$\.Input\.body\.payload "(?P<field>\w+)"\) \}\}'
    r'\{\{- \(get \$\.Input\.body\.payload "(?P=field)" \| toRawJson\) -\}\}'
    r'\{\{- else -\}\}\{\{ \(fail "use-default-instead"\) \}\}\{\{- end -\}\}'
)
DESTINATION = re.compile(r"spec\.arguments\.parameters\.#\(name=(?P<name>\w+)\)\.value")


@dataclass
class Webhook:
    """Events that were posted, oldest first."""

    url: str
    events: list[dict[str, Any]] = field(default_factory=list)

    def take(self, *names: str) -> list[dict[str, Any]]:
        """Return the events of these names, and forget them."""
        found = [event for event in self.events if event["payload"]["name"] in names]
        self.events = [event for event in self.events if event not in found]
        return found


@contextmanager
def serve() -> Iterator[Webhook]:
    """Serve a webhook on loopback."""
    webhook = Webhook("")

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            webhook.events.append(json.loads(self.read_body()))
            self.respond(200)

    with serving(Handler) as url:
        webhook.url = f"{url}/metaflow-event"
        yield webhook


def started_by(event: Mapping[str, Any], sensors: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, str]]]:
    """Return name and parameters of each template that an event starts.

    Args:
        event: what was posted.
        sensors: all that are deployed. Each waits for one event.
    """
    started = []
    for sensor in sensors:
        (dependency,), (trigger,) = sensor["spec"]["dependencies"], sensor["spec"]["triggers"]
        if all(_passes(each, event) for each in dependency["filters"]["exprs"]):
            source = trigger["template"]["k8s"]["source"]["resource"]
            parameters = {each["name"]: each["value"] for each in source["spec"]["arguments"]["parameters"]}
            for each in trigger["template"]["k8s"]["parameters"]:
                match = DESTINATION.fullmatch(each["dest"])
                assert match, each["dest"]
                parameters[match["name"]] = _mapped(each["src"], event)
            started.append((source["spec"]["workflowTemplateRef"]["name"], parameters))
    return started


def _passes(expression: Mapping[str, Any], event: Mapping[str, Any]) -> bool:
    (field_,) = expression["fields"]
    match = re.fullmatch(rf"{field_['name']} == '([^']*)'", expression["expr"])
    if not match:
        raise UnknownExpression(expression["expr"])
    return bool(_at(field_["path"], event) == match[1])


def _mapped(source: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    if "dataTemplate" not in source:
        return json.dumps(_at(source["dataKey"], event))
    match = DATA_TEMPLATE.fullmatch(source["dataTemplate"])
    if not match:
        raise UnknownExpression(source["dataTemplate"])
    payload = event["payload"]
    return json.dumps(payload[match["field"]]) if match["field"] in payload else str(source["value"])


def _at(path: str, event: Mapping[str, Any]) -> Any:
    found: Any = {"body": event}
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
