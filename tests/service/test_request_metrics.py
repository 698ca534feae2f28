"""BentoML's metrics of requests: the service's own beside those that BentoML fills itself."""

import re
from collections import defaultdict
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support.served import Served

from bentos.web.request_metrics import BATCH_SIZES, NAMESPACE, Identity, RequestMetrics

IDENTITY = Identity("a-bento", "7", "Service", 1)


def samples(service: Served) -> list[Any]:
    text = service.request("GET", "/metrics")[2].decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(found: list[Any], name: str, **labels: str) -> float:
    return sum(each.value for each in found if each.name == name and labels.items() <= each.labels.items())


def test_what_the_service_answers_is_counted_as_what_bentoml_answers(service: Served, pngs: list[bytes]) -> None:
    """Pins names, labels and buckets: /livez is counted by BentoML's code, /predict by this project's."""
    service.predict(pngs[0])
    service.request("GET", "/livez")
    shapes: dict[str, set[Any]] = defaultdict(set)
    shared: dict[str, set[Any]] = defaultdict(set)
    for sample in samples(service):
        endpoint = sample.labels.get("endpoint")
        if sample.name.startswith(NAMESPACE) and endpoint in ("/predict", "/livez"):
            shapes[endpoint].add((sample.name, frozenset(sample.labels), sample.labels.get("le")))
            names = ("service_name", "service_version", "runner_name")
            shared[endpoint].add(tuple(sample.labels[name] for name in names))
    assert shapes["/predict"] == shapes["/livez"]
    assert shared["/predict"] == shared["/livez"]
    assert len(shared["/livez"]) == 1
    assert {name for name, _, _ in shapes["/livez"]} == {
        f"{NAMESPACE}_request_total",
        f"{NAMESPACE}_request_in_progress",
        *(f"{NAMESPACE}_request_duration_seconds_{part}" for part in ("bucket", "count", "sum")),
    }


def test_the_remaining_metrics_are_named_as_bentoml_names_them() -> None:
    """BentoML fills these only with a batchable API: its own source is all there is to compare with."""
    import inspect

    from _bentoml_impl.server import app
    from bentoml._internal.server.http import instruments

    source = inspect.getsource(app.ServiceAppFactory.adaptive_batch_size_hist.func)
    labels = set(re.findall(r'"(\w+)"', source.partition("labelnames=")[2].partition("]")[0]))
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, IDENTITY)
    metrics.batch("predict", 5)
    metrics.start("/predict")
    found = {sample.name: set(sample.labels) for family in registry.collect() for sample in family.samples}
    name = re.search(r'name="(\w+)"', source)
    assert name is not None
    assert found[f"{NAMESPACE}_{name[1]}_count"] == labels
    assert "last_request_timestamp_seconds" in inspect.getsource(instruments.RunnerTrafficMetricsMiddleware)
    assert found[f"{NAMESPACE}_last_request_timestamp_seconds"] == {"service_name", "service_version", "runner_name"}
    assert len(BATCH_SIZES) == len(set(BATCH_SIZES))


def test_requests_are_counted_by_endpoint_and_status(service: Served, pngs: list[bytes]) -> None:
    requests = (
        ("POST", "/predict", pngs[0], "/predict", "200"),
        ("POST", "/predict", b"no picture", "/predict", "415"),
        ("GET", "/predict", None, "/predict", "405"),
        ("GET", "/predictions/unknown", None, "/predictions/{prediction_id}", "404"),
        ("GET", "/page/page.css", None, "/page/{name}", "200"),
        ("GET", "/monitoring/reports/none", None, "/monitoring/reports/{report_id}", "404"),
        ("GET", "/chosen/by/a/client", None, "other", "404"),
        ("GET", "/page/", None, "other", "404"),
        ("GET", "/readyz", None, "/readyz", "200"),
    )
    before = samples(service)
    for method, path, body, _, status in requests:
        assert str(service.request(method, path, body, {"content-type": "image/png"})[0]) == status
    after = samples(service)
    for _, path, _, endpoint, status in requests:
        same = sum((endpoint, status) == (each[3], each[4]) for each in requests)
        labels = {"endpoint": endpoint, "http_response_code": status}
        for name in ("request_total", "request_duration_seconds_count"):
            grown = value(after, f"{NAMESPACE}_{name}", **labels) - value(before, f"{NAMESPACE}_{name}", **labels)
            assert grown == same, (path, name)
    assert value(after, f"{NAMESPACE}_request_in_progress") == 0


def test_endpoints_begin_at_zero() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, IDENTITY)
    metrics.announce(["/predict"])
    for status in ("200", "500"):
        labels = {"endpoint": "/predict", "http_response_code": status, **IDENTITY.labels}
        assert registry.get_sample_value(f"{NAMESPACE}_request_total", labels) == 0


@pytest.mark.parametrize("endpoint", ["/readyz", "/predict"])
def test_probes_are_not_the_last_request(endpoint: str) -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, IDENTITY)
    metrics.start(endpoint, probe=endpoint == "/readyz")
    last = registry.get_sample_value(f"{NAMESPACE}_last_request_timestamp_seconds", IDENTITY.labels)
    assert (last == 0) == (endpoint == "/readyz")
