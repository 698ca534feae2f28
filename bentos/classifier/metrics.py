"""Prometheus metrics of the service. Knows no endpoints.

prometheus_client is imported in a worker: it reads the folder that BentoML sets when it is imported.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bentos.classifier.background import Background
    from fashion.predictions.outbox import Backlog

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.07, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the latency histogram; 0.07 is the bound of the service level objective."""


class ServiceMetrics:
    """Counters and gauges of one worker."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self.requests = Counter("fashion_requests", "Requests answered", ["path", "status"])
        self.seconds = Histogram("fashion_request_seconds", "Time to answer", ["path"], buckets=SECONDS)
        self.predictions = Counter("fashion_predictions", "Pictures predicted", ["label", "model_version"])
        self._backlog = Gauge(
            "fashion_log_backlog_rows", "Rows not shipped to the shared log yet", multiprocess_mode="mostrecent"
        )
        self._age = Gauge(
            "fashion_log_backlog_seconds", "Age of the oldest row that is not shipped", multiprocess_mode="mostrecent"
        )
        self._refused = Gauge(
            "fashion_log_refused_rows", "Rows that the shared log refused for good", multiprocess_mode="mostrecent"
        )
        labels = ["work"]
        self._waiting = Gauge("fashion_background_waiting", "Pictures that wait", labels, multiprocess_mode="livesum")
        self._done = Gauge("fashion_background_done", "Pictures done", labels, multiprocess_mode="livesum")
        self._dropped = Gauge("fashion_background_dropped", "Pictures dropped", labels, multiprocess_mode="livesum")
        self._failed = Gauge("fashion_background_failed", "Pictures failed", labels, multiprocess_mode="livesum")

    def set_backlog(self, backlog: "Backlog") -> None:
        """Set the gauges of the outbox."""
        self._backlog.set(backlog.rows)
        self._age.set(backlog.age_s)
        self._refused.set(backlog.refused)

    def set_background(self, work: "Background") -> None:
        """Set the gauges of one kind of background work."""
        for gauge, value in (
            (self._waiting, work.waiting),
            (self._done, work.done),
            (self._dropped, work.dropped),
            (self._failed, work.failed),
        ):
            gauge.labels(work.name).set(value)
