"""The classifier's own metrics, in this process: versions, background work, the latest drift report."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bentos.classifier.background import Background
from bentos.classifier.latest_report import LatestReport
from bentos.classifier.metrics import CONDITIONS, ServiceMetrics
from bentos.web.request_metrics import Identity
from fashion.drift import reports
from fashion.storage.address import open_store

IDENTITY = Identity("a-bento", "7", "Service", 1)
TIME = 1_800_000_000


@pytest.fixture
def metrics() -> ServiceMetrics:
    return ServiceMetrics(IDENTITY)


def value(metrics: ServiceMetrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"fashion_{metric}", labels)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_versions_are_shown_with_their_role(metrics: ServiceMetrics) -> None:
    metrics.set_model("fashion-classifier", "3", "champion")
    assert value(metrics, "model_info", name="fashion-classifier", version="3", role="champion") == 1


def test_background_work_is_counted_once_however_often_it_is_read(metrics: ServiceMetrics) -> None:
    work = Background("shadow", lambda _: None)
    work.close(10)
    work.done, work.dropped = 5, 2
    for _ in range(2):
        metrics.set_background(work)
    assert value(metrics, "background_pictures_total", work="shadow", outcome="done") == 5
    work.done = 8
    metrics.set_background(work)
    assert value(metrics, "background_pictures_total", work="shadow", outcome="done") == 8
    assert value(metrics, "background_pictures_total", work="shadow", outcome="dropped") == 2
    assert value(metrics, "background_waiting", work="shadow") == 0


class TestLatestReport:
    def test_the_latest_report_is_shown(self, metrics: ServiceMetrics, tmp_path: Path) -> None:
        store = open_store(str(tmp_path))
        for age, conditions in ((1, ["harmful"]), (0, ["drift", "decline"])):
            result = {"decision": "drift", "rows": 300, "conditions": conditions, "model_name": "shoes"}
            reports.publish(store, reports.make_id((TIME - age) * 1_000_000, "shoes", "3"), "", result)
        other = {"decision": "no_drift", "rows": 7, "conditions": [], "model_name": "bags"}
        reports.publish(store, reports.make_id((TIME + 9) * 1_000_000, "bags", "1"), "", other)
        LatestReport(store, metrics.set_report, model_name="shoes").look()
        wait(lambda: value(metrics, "drift_report_rows") == 300)
        assert value(metrics, "drift_report_timestamp_seconds") == TIME
        found = {name: value(metrics, "drift_report_condition", condition=name) for name in CONDITIONS}
        assert found == {"drift": 1, "harmful": 0, "decline": 1, "coverage": 0, "unjudged": 0}

    @pytest.mark.parametrize("report", [None, {"id": "x"}, {"id": "x", "rows": "many", "conditions": 3}])
    def test_without_a_report_and_with_a_damaged_one_all_is_zero(
        self, metrics: ServiceMetrics, report: Mapping[str, Any] | None
    ) -> None:
        metrics.set_report({"id": "20270115T080000Z-v3", "rows": 5, "conditions": ["drift"]})
        assert value(metrics, "drift_report_timestamp_seconds") == 1_800_000_000
        metrics.set_report(report)
        assert value(metrics, "drift_report_timestamp_seconds") == value(metrics, "drift_report_rows") == 0
        assert {value(metrics, "drift_report_condition", condition=name) for name in CONDITIONS} == {0}

    @pytest.mark.fault("reports' store that hangs")
    def test_a_store_that_hangs_hangs_nobody_and_is_asked_once(self) -> None:
        released, asked = threading.Event(), []

        class Hanging:
            def list(self, prefix: str = "") -> Iterator[str]:
                asked.append(prefix)
                released.wait(20)
                return iter(())

        found: list[Any] = []
        latest = LatestReport(Hanging(), found.append, model_name="shoes")  # type: ignore[arg-type]
        for _ in range(3):
            latest.look()
        assert not found
        released.set()
        wait(lambda: found == [None])
        assert len(asked) == 1
