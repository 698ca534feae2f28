"""Event bus and event source of the flows: as Argo Events' schema has them, and where Metaflow's settings lead."""

import re

import yaml
from support.argo import schema
from support.manifests import DEPLOY

FILE = DEPLOY / "argo-events.yaml"


def test_argo_events_knows_every_field() -> None:
    resources = list(yaml.safe_load_all(FILE.read_text()))
    assert [resource["kind"] for resource in resources] == ["EventBus", "EventSource"]
    assert [schema.errors(resource) for resource in resources] == [[], []]


def test_the_schema_refuses_a_field_that_there_is_not() -> None:
    *_, source = yaml.safe_load_all(FILE.read_text())
    source["spec"]["webhook"]["metaflow-event"]["verb"] = "POST"
    assert len(schema.errors(source)) == 1


def test_the_settings_lead_to_the_event_source() -> None:
    text = FILE.read_text()
    settings = dict(re.findall(r"^#   METAFLOW_ARGO_EVENTS_(\w+)=(\S+)$", text, re.MULTILINE))
    bus, source = yaml.safe_load_all(text)
    ((event, webhook),) = source["spec"]["webhook"].items()
    (port,) = source["spec"]["service"]["ports"]
    assert bus["metadata"]["name"] == "default"  # the one that Metaflow's sensors listen on
    assert settings["EVENT"] == event
    assert settings["EVENT_SOURCE"] == source["metadata"]["name"]
    assert str(port["targetPort"]) == webhook["port"]
    address = f"http://{source['metadata']['name']}-eventsource-svc:{port['port']}{webhook['endpoint']}"
    assert settings["WEBHOOK_URL"] == address
