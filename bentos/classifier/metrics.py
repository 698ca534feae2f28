"""Prometheus metrics of one worker of the classifier. Knows no endpoints, and nothing of who reads the metrics.

prometheus_client is imported in a worker: it reads the folder that BentoML sets when it is imported.
"""

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bentos.web.request_metrics import Identity, RequestMetrics
from fashion.drift import reports

if TYPE_CHECKING:
    from bentos.classifier.background import Background
    from fashion.predictions.canary_ending import CanaryEnding
    from fashion.predictions.outbox import Backlog

CONDITIONS = ("drift", "harmful", "decline", "coverage", "unreadable", "unjudged", "no_traffic")
"""What a drift report may say; each is a series of 0 or 1."""
CANARY_STATES = ("answers", "promoted", "stepped back")
"""What a canary does, or how its comparison ended; each is a series of 0 or 1. A promoted one answers, too."""
OUTCOMES = ("done", "dropped", "failed")
"""What may become of a picture in background work."""


class ServiceMetrics:
    """Counters and gauges of one worker, in a registry of its own."""

    def __init__(self, identity: Identity) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self.registry: CollectorRegistry = CollectorRegistry()
        self.requests = RequestMetrics(self.registry, identity)

        def gauge(name: str, about: str, labels: tuple[str, ...] = (), mode: Any = "mostrecent") -> Gauge:
            return Gauge(f"fashion_{name}", about, labels, registry=self.registry, multiprocess_mode=mode)

        self.predictions = Counter(
            "fashion_predictions", "Pictures predicted", ["label", "model_version"], registry=self.registry
        )
        self._by_label: dict[tuple[str, str], Counter] = {}
        self.unlike = Counter(
            "fashion_unlike_pictures",
            "Pictures unlike anything that the model has learnt",
            ["model_version"],
            registry=self.registry,
        )
        self._model = gauge("model_info", "The versions that are served: always 1", ("name", "version", "role"))
        self._canary = gauge("canary_state", "1 for the state of the canary that was built in", ("version", "state"))
        self._backlog = gauge("log_backlog_rows", "Rows of the prediction log that are not shipped yet")
        self._age = gauge("log_backlog_seconds", "Age of the oldest row that is not shipped")
        self._refused = gauge("log_refused_rows", "Rows that the log's destination refused for good")
        self._waiting = gauge("background_waiting", "Pictures that wait", ("work",), "livesum")
        self._pictures = Counter(
            "fashion_background_pictures", "Pictures by outcome", ["work", "outcome"], registry=self.registry
        )
        self._counted: dict[tuple[str, str], int] = {}
        self._counting = threading.Lock()
        self._report_time = gauge("drift_report_timestamp_seconds", "Time of the latest drift report; 0 without one")
        self._report_rows = gauge("drift_report_rows", "Predictions that the latest drift report is about")
        self._report_age = gauge("drift_age_seconds", "Time since the last run of the drift flow; NaN without one")
        self._overdue = gauge("drift_overdue_seconds", "Time since its next run was due; 0 before, or without a timer")
        self._times = (math.nan, math.nan)
        self._report = gauge("drift_report_condition", "1 if the latest drift report says so", ("condition",))

    def count_prediction(self, label: str, version: str, *, typical: bool | None) -> None:
        """Count a picture that was predicted.

        Args:
            label: name of its class.
            version: of the model.
            typical: False if it is unlike anything that the model has learnt.
        """
        series = self._by_label.get((label, version))
        if series is None:  # looking up a series by its labels takes longer than counting in it
            series = self._by_label[label, version] = self.predictions.labels(label, version)
        series.inc()
        if typical is False:
            self.unlike.labels(version).inc()

    def set_model(self, name: str, version: str, role: str) -> None:
        """Show a version that is served.

        Args:
            name: of the registered model.
            version: of it.
            role: champion, shadow or canary.
        """
        self._model.labels(name, version, role).set(1)

    def set_canary(self, version: str, ending: "CanaryEnding | None") -> None:
        """Show whether the canary answers, or how its comparison ended.

        Args:
            version: the canary.
            ending: of its comparison; None while it runs.
        """
        now = "answers" if ending is None else ending.kind
        for state in CANARY_STATES:
            self._canary.labels(version, state).set(state == now)

    def set_backlog(self, backlog: "Backlog") -> None:
        """Set the gauges of the outbox."""
        self._backlog.set(backlog.rows)
        self._age.set(backlog.age_s)
        self._refused.set(backlog.refused)

    def set_background(self, work: "Background") -> None:
        """Bring the numbers of one kind of background work up to date."""
        self._waiting.labels(work.name).set(work.waiting)
        with self._counting:  # a scrape and a push may ask at once
            for outcome in OUTCOMES:
                count: int = getattr(work, outcome)
                new = count - self._counted.get((work.name, outcome), 0)
                self._counted[work.name, outcome] = count
                self._pictures.labels(work.name, outcome).inc(new)

    def set_report(self, report: Mapping[str, Any] | None) -> None:
        """Show what the latest drift report says; None if there is none."""
        report = report or {"id": ""}
        rows, conditions = report.get("rows"), report.get("conditions")  # of a file that may be damaged
        made, context = reports.time_of(str(report["id"])), report.get("context")
        self._report_time.set(made)
        due_us = context.get("due_us") if isinstance(context, dict) else 0
        self._times = (made or math.nan, due_us / 1e6 if isinstance(due_us, int) and due_us else math.nan)
        self._report_rows.set(rows if isinstance(rows, int) else 0)
        for condition in CONDITIONS:
            self._report.labels(condition).set(isinstance(conditions, list) and condition in conditions)

    def set_drift_age(self, now: float) -> None:
        """Show how long ago drift was looked for, and how late the next look is: they grow while nothing happens.

        Args:
            now: seconds since 1970.
        """
        made, due = self._times
        self._report_age.set(now - made)
        self._overdue.set(max(0.0, now - due) if math.isfinite(due) else 0.0)
