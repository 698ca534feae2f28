"""What OpenTelemetry's standard variables say is exported. Nothing is, unless they name a collector.

The variables are those of https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. As that
specification asks, a value that is not known is a warning, and does not stop the service. Sampler, queue sizes,
headers, time limits and compression are read by OpenTelemetry's own classes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

EXPORTERS = ("otlp", "console", "none")
PROTOCOL = "http/protobuf"
INTERVAL_MS = 60_000
"""Time between two pushes of metrics, unless OTEL_METRIC_EXPORT_INTERVAL says otherwise."""

Exporter = Literal["otlp", "console"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TelemetryConfig:
    """Where traces and metrics go."""

    traces: Exporter | None = None
    """None: no traces are made."""
    metrics: Exporter | None = None
    """None: no metrics are pushed."""
    interval_s: float = INTERVAL_MS / 1000
    """Seconds between two pushes of metrics."""


def read_config(environment: Mapping[str, str]) -> TelemetryConfig:
    """Read the variables.

    Args:
        environment: usually `os.environ`.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return TelemetryConfig()
    return TelemetryConfig(
        _exporter(environment, "traces"), _exporter(environment, "metrics"), _interval_ms(environment) / 1000
    )


def _exporter(environment: Mapping[str, str], signal: str) -> Exporter | None:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    named = environment.get(variable, "").strip()
    if not named:
        # The specification's default is otlp to localhost; here nothing is sent that nobody asked for.
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        named = "otlp" if any(environment.get(each) for each in endpoints) else "none"
    if named not in EXPORTERS:
        _logger.warning("%s=%s is not known, so %s are off: set %s", variable, named, signal, " or ".join(EXPORTERS))
        return None
    if named == "otlp":
        _check_protocol(environment, signal)
        if signal == "metrics":
            _check_temporality(environment)
        return "otlp"
    return "console" if named == "console" else None


def _check_protocol(environment: Mapping[str, str], signal: str) -> None:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(variable, "").strip()
        if protocol:
            if protocol != PROTOCOL:
                text = "%s=%s is not spoken: %s are sent as %s, to port 4318 of most collectors"
                _logger.warning(text, variable, protocol, signal, PROTOCOL)
            return


def _check_temporality(environment: Mapping[str, str]) -> None:
    variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    preferred = environment.get(variable, "").strip()
    if preferred.lower() not in ("", "cumulative"):
        _logger.warning("%s=%s is not made: sums are cumulative; a collector can convert them", variable, preferred)


def _interval_ms(environment: Mapping[str, str]) -> int:
    text = environment.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if text:
        variable = "OTEL_METRIC_EXPORT_INTERVAL"
        _logger.warning("%s=%s is not a number of milliseconds above 0: %d is used", variable, text, INTERVAL_MS)
    return INTERVAL_MS
