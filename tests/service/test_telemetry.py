"""Traces and pushed metrics of a served bento, as a collector receives them; and what a collector's absence costs."""

import json
import socket
from collections.abc import Iterator

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import CollectorRegistry
from support import otlp
from support.forms import form
from support.machine import Machine
from support.otlp import Collector, attributes
from support.served import Served, free_port

from bentos.web.metrics_push import as_otlp
from bentos.web.request_metrics import Identity, RequestMetrics
from bentos.web.telemetry import Telemetry, resource
from bentos.web.telemetry_config import TelemetryConfig

IDENTITY = Identity("a-bento", "7", "Service", 2)
TOTAL = "bentoml_service_request_total"
SECONDS = "bentoml_service_request_duration_seconds"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with otlp.collect() as collector:
        yield collector


@pytest.fixture(scope="module")
def observed(
    challenged: Machine, bento: str, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """The bento, pushing to the collector."""
    environment = challenged.serving(
        FASHION_HOME=str(tmp_path_factory.mktemp("observed") / "var"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
        OTEL_BSP_SCHEDULE_DELAY="200",
        OTEL_METRIC_EXPORT_INTERVAL="300",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    served = Served(bento, environment, tmp_path_factory.mktemp("service") / "service.log")
    yield served
    assert served.stop() == 0


def traceparent(trace_id: str, *, sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{trace_id}-{'cd' * 8}-0{int(sampled)}"}


def counted(push: dict[str, object], endpoint: str, status: str = "200") -> float:
    """Requests of an endpoint, by one push."""
    points = push[TOTAL].sum.data_points  # type: ignore[attr-defined]
    wanted = {"endpoint": endpoint, "http_response_code": status}
    return sum(point.as_double for point in points if wanted.items() <= attributes(point.attributes).items())


class TestTraces:
    def test_a_request_is_traced_through_front_network_and_log(
        self, observed: Served, collector: Collector, pngs: list[bytes]
    ) -> None:
        trace_id = "ab" * 16
        headers = {"content-type": "image/png", **traceparent(trace_id)}
        answer = json.loads(observed.request("POST", "/predict", pngs[0], headers)[2])
        collector.wait(lambda: "POST /predict" in collector.trace(trace_id))
        trace = collector.trace(trace_id)
        request = trace.pop("POST /predict")
        assert request.kind == Span.SPAN_KIND_SERVER
        assert request.parent_span_id.hex() == "cd" * 8  # the caller's trace goes on
        found = attributes(request.attributes)
        assert found["http.route"] == found["url.path"] == "/predict"
        assert (found["http.request.method"], found["http.response.status_code"]) == ("POST", 200)
        assert found["fashion.prediction_ids"] == [answer["prediction_id"]]
        assert found["fashion.model_version"] == answer["model"]["version"]
        assert sorted(trace, key=lambda name: trace[name].start_time_unix_nano) == [
            "decode",
            "wait",
            "network",
            "log",
        ]
        for part in trace.values():
            assert part.parent_span_id == request.span_id
            assert request.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
            assert part.end_time_unix_nano <= request.end_time_unix_nano
        assert attributes(trace["network"].attributes)["fashion.batch_size"] >= 1

    def test_a_batch_names_all_its_predictions(self, observed: Served, collector: Collector, pngs: list[bytes]) -> None:
        trace_id = "ba" * 16
        body, headers = form(*[("images", f"{number}.png", png) for number, png in enumerate(pngs[:3])])
        answer = json.loads(observed.request("POST", "/predict/batch", body, {**headers, **traceparent(trace_id)})[2])
        collector.wait(lambda: "POST /predict/batch" in collector.trace(trace_id))
        found = attributes(collector.trace(trace_id)["POST /predict/batch"].attributes)
        assert found["fashion.prediction_ids"] == [each["prediction_id"] for each in answer["results"]]

    def test_errors_of_clients_are_no_errors_of_the_service(self, observed: Served, collector: Collector) -> None:
        trace_id = "ef" * 16
        headers = {"content-type": "image/png", **traceparent(trace_id)}
        assert observed.request("POST", "/predict", b"no picture", headers)[0] == 415
        collector.wait(lambda: collector.trace(trace_id))
        (span,) = collector.trace(trace_id).values()
        assert attributes(span.attributes)["http.response.status_code"] == 415
        assert span.status.code == Status.STATUS_CODE_UNSET

    def test_a_caller_that_is_not_sampled_is_not_traced(
        self, observed: Served, collector: Collector, pngs: list[bytes]
    ) -> None:
        for trace_id, sampled in (("11" * 16, False), ("22" * 16, True)):
            headers = {"content-type": "image/png", **traceparent(trace_id, sampled=sampled)}
            assert observed.request("POST", "/predict", pngs[0], headers)[0] == 200
        collector.wait(lambda: collector.trace("22" * 16))
        assert not collector.trace("11" * 16)

    def test_probes_are_not_traced(self, observed: Served, collector: Collector) -> None:
        observed.request("GET", "/readyz")
        observed.request("GET", "/model", None, traceparent("33" * 16))
        collector.wait(lambda: collector.trace("33" * 16))
        assert {"GET /readyz", "GET /livez"}.isdisjoint(span.name for span in collector.spans)


class TestMetrics:
    def test_a_push_says_what_a_scrape_says(self, observed: Served, collector: Collector, pngs: list[bytes]) -> None:
        for png in pngs[:3]:
            observed.predict(png)
        before = len(collector.pushes)
        collector.wait(lambda: len(collector.pushes) >= before + 2)
        _, push = collector.pushes[-1]
        scrape = observed.request("GET", "/metrics")[2].decode()
        prefix = f'{TOTAL}{{endpoint="/predict",http_response_code="200"'
        (line,) = [each for each in scrape.splitlines() if each.startswith(prefix)]
        assert counted(push, "/predict") == float(line.split()[-1])
        assert push[TOTAL].sum.is_monotonic
        cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        assert push[TOTAL].sum.aggregation_temporality == cumulative
        (latency,) = [
            point
            for point in push[SECONDS].histogram.data_points
            if {"endpoint": "/predict", "http_response_code": "200"}.items() <= attributes(point.attributes).items()
        ]
        assert sum(latency.bucket_counts) == latency.count == counted(push, "/predict")
        assert 0.07 in latency.explicit_bounds
        (model,) = [
            found
            for point in push["fashion_model_info"].gauge.data_points
            if (found := attributes(point.attributes))["role"] == "champion"
        ]
        assert model["version"] == "1"

    def test_instances_add_up_and_are_flushed_by_sigterm(
        self,
        challenged: Machine,
        bento: str,
        observed: Served,
        collector: Collector,
        pngs: list[bytes],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        folder = tmp_path_factory.mktemp("second")
        environment = challenged.serving(
            FASHION_HOME=str(folder / "var"),
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.address,
            OTEL_SERVICE_NAME="second",  # pushes every minute, and exports spans every five seconds
        )
        second = Served(bento, environment, folder / "service.log")
        for png in pngs[:7]:
            second.predict(png)
        second.request("GET", "/model", None, traceparent("44" * 16))
        assert second.stop() == 0
        assert collector.trace("44" * 16)
        latest = {found["service.instance.id"]: (found, push) for found, push in collector.pushes}
        assert len(latest) == 2
        by_name = {found["service.name"]: push for found, push in latest.values()}
        assert counted(by_name["second"], "/predict") == 7
        first = counted(by_name["fashion-classifier"], "/predict")
        assert sum(counted(push, "/predict") for _, push in latest.values()) == first + 7

    def test_a_resource_names_bento_version_and_what_the_environment_adds(
        self, observed: Served, collector: Collector, bento: str
    ) -> None:
        collector.wait(lambda: collector.pushes)
        found = next(found for found, _ in collector.pushes if found["service.name"] == "fashion-classifier")
        assert found["service.version"] == bento.partition(":")[2]
        assert found["deployment.environment.name"] == "test"


@pytest.mark.fault("telemetry collector that hangs")
def test_a_collector_that_hangs_or_is_down_costs_no_request_and_no_shutdown(
    challenged: Machine, bento: str, pngs: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("alone")
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # accepts connections, and never answers
        environment = challenged.serving(
            FASHION_HOME=str(folder / "var"),
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"http://127.0.0.1:{hanging.getsockname()[1]}/v1/traces",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"http://127.0.0.1:{free_port()}/v1/metrics",
            # Much longer than `stop` waits: a shutdown that waited for an export would fail the test.
            OTEL_EXPORTER_OTLP_TIMEOUT="300",
            OTEL_BSP_SCHEDULE_DELAY="100",
            OTEL_BSP_MAX_QUEUE_SIZE="64",
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE="16",
            OTEL_METRIC_EXPORT_INTERVAL="100",
        )
        served = Served(bento, environment, folder / "service.log")
        try:
            answers = [served.predict(png) for png in pngs[:100]]
            assert all("prediction_id" in each for each in answers)
        finally:
            code = served.stop()
        assert code == 0
        hanging.settimeout(1)
        hanging.accept()[0].close()  # it was asked


class TestOff:
    def test_nothing_runs_and_nothing_is_made(self) -> None:
        telemetry = Telemetry(
            TelemetryConfig(), IDENTITY, CollectorRegistry(), several_workers=False, update=lambda: None
        )
        assert telemetry.tracing.start("GET", "/", "/", []) is None
        telemetry.tracing.span("decode", 0, 1)
        telemetry.tracing.annotate({"a": 1})
        telemetry.close()


class TestResource:
    def test_an_instance_is_no_other(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("OTEL_RESOURCE_ATTRIBUTES", "OTEL_SERVICE_NAME"):
            monkeypatch.delenv(name, raising=False)
        first, second = (resource(IDENTITY, several_workers=False).attributes for _ in range(2))
        assert first["service.instance.id"] != second["service.instance.id"]
        assert (first["service.name"], first["service.version"]) == ("a-bento", "7")

    def test_workers_of_an_instance_with_a_given_id_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-1,service.name=mine")
        found = resource(IDENTITY, several_workers=True).attributes
        assert (found["service.instance.id"], found["service.name"]) == ("pod-1-2", "mine")
        assert resource(IDENTITY, several_workers=False).attributes["service.instance.id"] == "pod-1"


def test_a_histogram_becomes_counts_between_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, IDENTITY)
    for seconds in (0.0004, 0.06, 0.06, 100):
        metrics.start("/predict")
        metrics.finish("/predict", 200, seconds)
    (scope,) = as_otlp(registry, resource(IDENTITY, several_workers=False), 1, 2).resource_metrics[0].scope_metrics
    (metric,) = [each for each in scope.metrics if each.name == SECONDS]
    (point,) = metric.data.data_points
    bounds = [*point.explicit_bounds, float("inf")]
    assert dict(zip(bounds, point.bucket_counts, strict=True)) == {
        **dict.fromkeys(bounds, 0),
        0.001: 1,
        0.07: 2,
        float("inf"): 1,
    }
    assert (point.count, point.start_time_unix_nano, point.time_unix_nano) == (4, 1, 2)
    assert point.sum == pytest.approx(100.1204)
    assert not [each.name for each in scope.metrics if not each.data.data_points]
