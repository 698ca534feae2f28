"""The classifier's own metrics, in this process: versions, background work, the latest drift report."""

import math
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
DIGEST = "0a1b2c3d" * 8


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
        LatestReport(store, metrics.set_report, model_name="shoes", digest=DIGEST).look()
        wait(lambda: value(metrics, "drift_report_rows") == 300)
        assert value(metrics, "drift_report_timestamp_seconds") == TIME
        found = {name: value(metrics, "drift_report_condition", condition=name) for name in CONDITIONS}
        assert {name for name, holds in found.items() if holds} == {"drift", "decline"}
        assert set(found.values()) == {0, 1}

    @pytest.mark.fault("a registry was lost, and version numbers began anew")
    @pytest.mark.parametrize(("latest", "rows"), [(["other"], 0), (["other", "served"], 300), (["none"], 300)])
    def test_a_report_on_another_package_of_the_same_number_is_not_this_ones(
        self, metrics: ServiceMetrics, tmp_path: Path, latest: list[str], rows: int
    ) -> None:
        digests = {"served": DIGEST[:16], "other": "f" * 16, "none": ""}
        store, harmful = open_store(str(tmp_path)), {"decision": "drift", "model_name": "shoes"}
        for number, of in enumerate(latest):
            found = {"rows": 300 if of != "other" else 900, "conditions": ["harmful"] if of != "served" else []}
            id_ = reports.make_id(TIME * 1_000_000, "shoes", str(9 - number))
            reports.publish(store, id_, "", {**harmful, **found, "model_digest": digests[of]})
        LatestReport(store, metrics.set_report, model_name="shoes", digest=DIGEST).look()
        wait(lambda: value(metrics, "drift_report_timestamp_seconds") == TIME)
        wait(lambda: value(metrics, "drift_report_rows") == rows)
        assert value(metrics, "drift_report_condition", condition="harmful") == (latest == ["none"])

    @pytest.mark.fault("a timer that no longer runs")
    def test_the_age_of_the_last_look_grows_and_says_when_the_next_is_late(self, metrics: ServiceMetrics) -> None:
        due_us = (TIME + 86_400) * 1_000_000
        metrics.set_report({"id": "20270115T080000Z-v3", "context": {"due_us": due_us}})
        for now, age, overdue in ((TIME + 60, 60, 0), (TIME + 90_000, 90_000, 3_600)):
            metrics.set_drift_age(now)
            assert (value(metrics, "drift_age_seconds"), value(metrics, "drift_overdue_seconds")) == (age, overdue)

    @pytest.mark.parametrize("report", [None, {"id": "x"}, {"id": "x", "context": {"due_us": "soon"}}, {"context": 3}])
    def test_without_a_report_no_age_is_made_up(
        self, metrics: ServiceMetrics, report: Mapping[str, Any] | None
    ) -> None:
        metrics.set_report(report and {"id": "x", **report})
        metrics.set_drift_age(TIME)
        age = value(metrics, "drift_age_seconds")
        assert age is not None
        assert math.isnan(age)
        assert value(metrics, "drift_overdue_seconds") == 0

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
        latest = LatestReport(Hanging(), found.append, model_name="shoes", digest=DIGEST)  # type: ignore[arg-type]
        for _ in range(3):
            latest.look()
        assert not found
        released.set()
        wait(lambda: found == [None])
        assert len(asked) == 1
