"""What OpenTelemetry's variables turn on."""

import logging

import pytest

from bentos.web.telemetry_config import TelemetryConfig, read_config

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
OFF = TelemetryConfig()


@pytest.mark.parametrize(
    ("variables", "traces", "metrics"),
    [
        ({}, None, None),
        ({ENDPOINT: ""}, None, None),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"}, None, None),
        ({ENDPOINT: "http://collector:4318"}, "otlp", "otlp"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, "otlp", None),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://collector:4318/v1/metrics"}, None, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp", None),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, None, "otlp"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": " otlp "}, "console", "otlp"),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "True"}, None, None),
    ],
)
def test_only_what_is_named_is_exported(variables: dict[str, str], traces: str | None, metrics: str | None) -> None:
    config = read_config(variables)
    assert (config.traces, config.metrics) == (traces, metrics)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER=jaeger is not known, so traces are off: set otlp"),
        ({ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "PROTOCOL=grpc is not spoken"),
        (
            {ENDPOINT: "http://c:4318", "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta"},
            "TEMPORALITY_PREFERENCE=delta is not made: sums are cumulative",
        ),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "60s"}, "OTEL_METRIC_EXPORT_INTERVAL=60s is not a number of milliseconds"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "0"}, "OTEL_METRIC_EXPORT_INTERVAL=0 is not a number of milliseconds"),
    ],
)
def test_a_value_that_is_not_known_is_a_warning(
    variables: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        config = read_config(variables)
    assert words in caplog.text
    assert config.interval_s == 60


def test_the_interval_is_read_in_milliseconds() -> None:
    assert read_config({"OTEL_METRIC_EXPORT_INTERVAL": "1500"}).interval_s == 1.5
