"""Pushes Prometheus metrics by OTLP: those of `/metrics`, under the same names. Knows no particular metric.

A scrape of an autoscaled service reaches one instance at random. Pushed, each process sends its own numbers, as sums
since its start, under its own `service.instance.id`: the sum over all is the service's, and no request waits for it.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from bentos.web.telemetry_config import Exporter

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, Metric, MetricsData, NumberDataPoint
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import CollectorRegistry
    from prometheus_client.samples import Sample

SCOPE = "fashion"
"""Name of the instrumentation."""

_logger = logging.getLogger(__name__)


class MetricsPush:
    """A thread that pushes a registry, every `interval_s` and at the end."""

    def __init__(
        self,
        registry: "CollectorRegistry",
        exporter: Exporter,
        resource: "Resource",
        *,
        interval_s: float,
        update: Callable[[], None],
    ) -> None:
        """Start the thread.

        Args:
            registry: of this process's metrics.
            exporter: where they go.
            resource: describes this process.
            interval_s: seconds between two pushes.
            update: called before each, to bring gauges up to date.
        """
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter

        self._exporter: MetricExporter
        if exporter == "console":
            self._exporter = ConsoleMetricExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

            self._exporter = OTLPMetricExporter()
        self._registry, self._resource = registry, resource
        self._interval_s, self._update = interval_s, update
        self._started_ns = time.time_ns()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Push once more. May take as long as the exporter's time limit: call it from a thread that can be left."""
        self._closing.set()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        while True:
            ended = self._closing.wait(self._interval_s)
            try:
                self._update()
                self._exporter.export(as_otlp(self._registry, self._resource, self._started_ns, time.time_ns()))
            except Exception as error:  # the next push may succeed
                _logger.warning("metrics were not pushed: %s: %s", type(error).__name__, error)
            if ended:
                return


def as_otlp(registry: "CollectorRegistry", resource: "Resource", started_ns: int, now_ns: int) -> "MetricsData":
    """Convert metrics to OpenTelemetry's: counters and histograms to cumulative sums, gauges to gauges.

    Args:
        registry: of the metrics.
        resource: whose they are.
        started_ns: since when counters count, nanoseconds since 1970.
        now_ns: nanoseconds since 1970.
    """
    from opentelemetry.sdk.metrics.export import AggregationTemporality as Temporality
    from opentelemetry.sdk.metrics.export import Gauge, Metric, MetricsData, ResourceMetrics, ScopeMetrics, Sum
    from opentelemetry.sdk.metrics.export import Histogram as HistogramData
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    def converted() -> "Iterator[Metric]":
        for family in registry.collect():
            data: Any
            if family.type == "histogram":
                points = list(_histograms(family.samples, started_ns, now_ns))
                yield Metric(family.name, family.documentation, "", HistogramData(points, Temporality.CUMULATIVE))
            elif family.type == "counter":
                counted = [each for each in family.samples if each.name.endswith("_total")]
                data = Sum([_number(each, started_ns, now_ns) for each in counted], Temporality.CUMULATIVE, True)
                yield Metric(f"{family.name}_total", family.documentation, "", data)
            elif family.type == "gauge":
                data = Gauge([_number(each, None, now_ns) for each in family.samples])
                yield Metric(family.name, family.documentation, "", data)

    scope = InstrumentationScope(SCOPE)
    metrics = [metric for metric in converted() if metric.data.data_points]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(scope, metrics, "")], "")])


def _number(sample: "Sample", started_ns: int | None, now_ns: int) -> "NumberDataPoint":
    from opentelemetry.sdk.metrics.export import NumberDataPoint

    return NumberDataPoint(sample.labels, started_ns, now_ns, sample.value)  # type: ignore[arg-type]  # None: a gauge


def _histograms(samples: "list[Sample]", started_ns: int, now_ns: int) -> "Iterator[HistogramDataPoint]":
    """Join the samples of each series. Prometheus counts what is at most a bound, OTLP what lies between two."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    at_most: dict[tuple[tuple[str, str], ...], dict[float, float]] = defaultdict(dict)
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in samples:
        series = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        if sample.name.endswith("_bucket"):
            at_most[series][float(sample.labels["le"])] = sample.value
        elif sample.name.endswith("_sum"):
            sums[series] = sample.value
    for series, buckets in at_most.items():
        bounds = sorted(buckets)
        counts = [int(buckets[bound]) for bound in bounds]
        between = [count - before for before, count in zip([0, *counts], counts, strict=False)]
        unknown: Any = None  # Prometheus keeps neither the least nor the largest value
        yield HistogramDataPoint(
            dict(series), started_ns, now_ns, counts[-1], sums[series], between, bounds[:-1], unknown, unknown
        )
