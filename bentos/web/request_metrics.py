"""BentoML's metrics of requests, for endpoints that BentoML does not answer itself. Knows no endpoints.

Names, labels and meaning are those of https://docs.bentoml.com/en/latest/build-with-bentoml/observability/metrics.html,
so that boards made for BentoML work. BentoML counts what it answers itself under the same names: prometheus_client then
writes both to the files that `/metrics` reads. A test compares the two. Only a registry refuses a name that it has
already, so these metrics have one of their own.
"""

import time
from collections import Counter as Counts
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

NAMESPACE = "bentoml_service"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.07, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the latency histogram; 0.07 is the bound of the service level objective."""
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Upper bounds of the batch size histogram."""


@dataclass(frozen=True)
class Identity:
    """What is served, in the words of BentoML's labels."""

    service_name: str
    """Name of the bento."""
    service_version: str
    """Version of the bento."""
    runner_name: str
    """Name of the BentoML service in it."""
    worker_index: int | None
    """Number of this process among the service's, from 1; None outside of a server."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that all series share."""
        return {
            "service_name": self.service_name,
            "service_version": self.service_version,
            "runner_name": self.runner_name,
        }


class RequestMetrics:
    """Counts requests and measures their time, in one worker."""

    def __init__(self, registry: "CollectorRegistry", identity: Identity) -> None:
        """
        Args:
            registry: of the worker's own metrics.
            identity: goes into the labels.
        """
        from prometheus_client import Counter, Gauge, Histogram

        self._identity = identity
        self._shared = identity.labels
        labels = ["endpoint", *self._shared]
        self._total = Counter(
            "request_total", "Total number of requests", [*labels, "http_response_code"], NAMESPACE, registry=registry
        )
        self._duration = Histogram(
            "request_duration_seconds",
            "Request duration in seconds",
            [*labels, "http_response_code"],
            NAMESPACE,
            registry=registry,
            buckets=SECONDS,
        )
        self._in_progress = Gauge(
            "request_in_progress",
            "Requests in progress now",
            labels,
            NAMESPACE,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._last_request = Gauge(
            "last_request_timestamp_seconds",
            "Timestamp of the last received request",
            list(self._shared),
            NAMESPACE,
            registry=registry,
        ).labels(**self._shared)
        self._batch_size = Histogram(
            "adaptive_batch_size",
            "Pictures of one call of the model",
            [*self._shared, "worker_index", "method_name"],
            NAMESPACE,
            registry=registry,
            buckets=BATCH_SIZES,
        )
        # Looking up a series by its labels takes longer than counting in it.
        self._finished: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._running: dict[str, Gauge] = {}
        self.answered: Counts[tuple[str, int]] = Counts()
        """Requests of this worker by endpoint and status."""
        self._batches: dict[str, Histogram] = {}

    def announce(self, endpoints: Iterable[str]) -> None:
        """Show 0 for endpoints without requests: the first request then is an increase, which `rate` counts."""
        for endpoint in endpoints:
            for status in (200, 500):
                self._series(endpoint, status)

    def start(self, endpoint: str, *, probe: bool = False) -> None:
        """Count a request as being answered.

        Args:
            endpoint: path of the route, never one that a client has chosen: the metrics would grow with each.
            probe: the request is the platform's, not a user's.
        """
        running = self._running.get(endpoint)
        if running is None:
            running = self._running[endpoint] = self._in_progress.labels(endpoint=endpoint, **self._shared)
        running.inc()
        if not probe:
            self._last_request.set(time.time())

    def finish(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request as answered.

        Args:
            endpoint: as in `start`.
            status: of the response.
            seconds: from the request's arrival to the end of the response.
        """
        self._running[endpoint].dec()
        total, duration = self._finished.get((endpoint, status)) or self._series(endpoint, status)
        total.inc()
        self.answered[endpoint, status] += 1
        duration.observe(seconds)

    def batch(self, method: str, size: int) -> None:
        """Count a call of the model with `size` inputs."""
        batches = self._batches.get(method)
        if batches is None:
            index = self._identity.worker_index
            batches = self._batches[method] = self._batch_size.labels(
                worker_index=index, method_name=method, **self._shared
            )
        batches.observe(size)

    def _series(self, endpoint: str, status: int) -> "tuple[Counter, Histogram]":
        labels = {"endpoint": endpoint, "http_response_code": status, **self._shared}
        series = self._total.labels(**labels), self._duration.labels(**labels)
        self._finished[endpoint, status] = series
        return series
