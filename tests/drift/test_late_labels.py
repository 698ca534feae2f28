"""Feedback on predictions of before the window counts when it arrives."""

import dataclasses
import secrets
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.imagined import CLASSES, HARMLESS, SETTINGS, sample_predictions
from support.log_rows import DAY_US, MODEL_NAME, record

from fashion.drift import context, inspection, late_labels
from fashion.drift.clusters import Clusters
from fashion.drift.distinct import DistinctPictures, Origins
from fashion.drift.judged_pictures import JudgedPictures, late_rows
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.references import References
from fashion.model.reference import Reference
from fashion.predictions import windows
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, SAMPLES, Feedback, ModelId, PredictionRecord
from fashion.predictions.windows import LateFeedback, LocalRows, Window

NOW_US = 1_800_000_000_000_000
WINDOW = Window(NOW_US - DAY_US, NOW_US)


@pytest.fixture(scope="module")
def stats() -> ReferenceStats:
    rows = sample_predictions(2000, seed=1)
    truth = rows.labels.copy()
    truth[:200] = (truth[:200] + 1) % 3
    return ReferenceStats(Reference(truth, rows), HARMLESS, CLASSES)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[PredictionLog]:
    with PredictionLog(tmp_path / "predictions.db") as log:
        yield log


def fill(
    log: PredictionLog,
    *,
    days_ago: float,
    rows: int = 100,
    version: str = "3",
    client: str | None = None,
    picture: str | None = None,
) -> list[PredictionRecord]:
    made = [
        record(
            time_us=int(NOW_US - days_ago * DAY_US),
            model_version=version,
            client=client,
            label=1,
            probabilities=(0.2, 0.6, 0.2),
            image_sha256=picture or secrets.token_hex(32),
        )
        for _ in range(rows)
    ]
    log.append(made)
    return made


def label(log: PredictionLog, rows: list[PredictionRecord], true_label: int, *, hours_ago: float) -> None:
    given_us = int(NOW_US - hours_ago * 3_600_000_000)
    log.append_feedback(Feedback(row.prediction_id, true_label, "csv", given_us) for row in rows)


def inspect(log: PredictionLog, stats: ReferenceStats, window: Window = WINDOW) -> list[inspection.Inspection]:
    """As the flow does."""
    source = LocalRows(log)
    part = inspection.count(source.batches(window), lambda _: stats, max_plot_rows=100, max_examples=0)
    late = late_labels.count(source, window, lambda _: stats)
    found, _ = inspection.decide([part, late.part], lambda _: stats, SETTINGS)
    around = context.Surroundings("", 0, context.Context(), (window.since_us, window.until_us))
    return [context.with_context(each, around, late.rows, References(MODEL_NAME, Path())) for each in found]


def test_wrong_labels_of_today_on_the_rows_of_last_week_alarm(log: PredictionLog, stats: ReferenceStats) -> None:
    earlier = fill(log, days_ago=7)
    label(log, earlier[:75], 0, hours_ago=2)
    label(log, earlier[75:], 1, hours_ago=2)
    (found,) = inspect(log, stats)
    assert found.result.rows == 0
    assert found.result.conditions == {"decline"}
    assert (found.result.since_us, found.result.until_us) == (WINDOW.since_us, WINDOW.until_us)
    assert found.result.reason.startswith("this version has predicted nothing in this window")
    assert found.result.feedback is not None
    assert (found.result.feedback.rows, found.result.feedback.accuracy) == (100, 0.25)
    assert found.result.context.late_labels == 100


def test_they_are_added_to_those_on_the_rows_of_the_window(log: PredictionLog, stats: ReferenceStats) -> None:
    label(log, fill(log, days_ago=7, rows=30), 0, hours_ago=2)
    label(log, fill(log, days_ago=0.5, rows=70), 1, hours_ago=2)
    (found,) = inspect(log, stats)
    assert found.result.rows == 70
    assert found.result.feedback is not None
    assert (found.result.feedback.rows, found.result.feedback.accuracy) == (100, 0.7)
    assert found.result.context.late_labels == 30


def test_one_client_whose_late_labels_are_wrong_is_no_decline(log: PredictionLog, stats: ReferenceStats) -> None:
    label(log, fill(log, days_ago=7, rows=500, client="complains"), 0, hours_ago=2)
    for number in range(30):
        label(log, fill(log, days_ago=7, rows=10, client=f"client-{number}"), 1, hours_ago=2)
    (found,) = inspect(log, stats)
    feedback = found.result.feedback
    assert feedback is not None
    assert (feedback.rows, feedback.late, feedback.accuracy) == (800, 800, 0.375)
    right = np.repeat([False, True], [500, 300])
    assert stats.p_decline(right, Clusters(np.full(800, "", object))) < 1e-50  # as if of 800 clients
    assert not feedback.p_decline < SETTINGS.alpha
    assert "decline" not in found.result.conditions


def test_a_decline_at_many_clients_is_found_in_late_labels(log: PredictionLog, stats: ReferenceStats) -> None:
    for number in range(50):
        rows = fill(log, days_ago=7, rows=10, client=f"client-{number}")
        label(log, rows[:4], 0, hours_ago=2)
        label(log, rows[4:], 1, hours_ago=2)
    (found,) = inspect(log, stats)
    assert found.result.conditions == {"decline"}


def test_a_client_is_one_within_the_window_and_before_it(log: PredictionLog, stats: ReferenceStats) -> None:
    """Labels count the same whether their rows are of the window or of before it."""
    found = []
    for days_ago in (0.5, 7):
        with PredictionLog(log.path.with_name(f"{days_ago}.db")) as each:
            for number in range(20):
                rows = fill(each, days_ago=0.5, rows=5, client=f"client-{number}")
                rows += fill(each, days_ago=days_ago, rows=5, client=f"client-{number}")
                label(each, rows, number % 2, hours_ago=2)
            ((inspected,), late) = inspect(each, stats), int(days_ago == 7) * 100
            assert inspected.result.feedback is not None
            assert inspected.result.feedback.late == late
            found.append(dataclasses.replace(inspected.result.feedback, late=0))
    assert found[0] == found[1]
    assert found[0].rows == 200


def test_a_picture_that_is_judged_late_many_times_counts_once(log: PredictionLog, stats: ReferenceStats) -> None:
    again = secrets.token_hex(32)
    label(log, fill(log, days_ago=7, rows=50, picture=again), 0, hours_ago=2)
    label(log, fill(log, days_ago=0.5, rows=3, picture=again), 0, hours_ago=2)
    label(log, fill(log, days_ago=7, rows=30), 1, hours_ago=2)
    (found,) = inspect(log, stats)
    assert found.result.feedback is not None
    assert found.result.feedback.rows == 31
    assert found.result.feedback.confusion[0][1] == 1
    assert found.result.context.late_labels == 80


def test_late_labels_beyond_the_sample_count_as_often_as_others() -> None:
    """The window's pictures are sampled from four times as many: so are the late ones, which are few."""
    window, late = DistinctPictures(1000), DistinctPictures(1000)
    labels = np.zeros(4000, np.int64)
    window.add(late_rows(labels, labels, Origins.unknown(4000, 0)))
    late.add(late_rows(labels[:400], labels[:400] + 1, Origins.unknown(400, 4000)))
    judged = JudgedPictures.of(window, late)
    assert judged is not None
    assert judged.is_late.sum() == (judged.labels != judged.true_labels).sum()
    assert len(judged.labels) == 1000 + judged.is_late.sum()
    assert 75 < judged.is_late.sum() < 125


def test_late_labels_are_counted_in_constant_memory(log: PredictionLog, stats: ReferenceStats) -> None:
    class Many(LocalRows):
        def late_feedback(self, window: Window, oldest_us: int) -> Iterator[LateFeedback]:
            model, ids = ModelId(MODEL_NAME, "3", None), (f"{number:064x}" for number in range(250_000))
            return (LateFeedback(model, 1, number % 3, each, each, "client") for number, each in enumerate(ids))

    tracemalloc.start()
    late = late_labels.count(Many(log), WINDOW, lambda _: stats)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ((_, found),) = late.part.items()
    assert found.counts is not None
    assert found.counts.late.count == pytest.approx(250_000, rel=0.02)
    assert peak < 40e6  # 21 MB; all of them as objects are 99 MB


def test_each_label_counts_in_one_window_only(log: PredictionLog, stats: ReferenceStats) -> None:
    """A week of daily windows: labels arrive up to five days after their predictions."""
    rng = np.random.default_rng(1)
    for day in range(7):
        for row in fill(log, days_ago=7 - day - 0.5, rows=20):
            delay = rng.uniform(0, 5)
            label(log, [row], 1, hours_ago=24 * (7 - day - 0.5 - delay))
    windows = [Window(NOW_US - (7 - day) * DAY_US, NOW_US - (6 - day) * DAY_US) for day in range(13)]
    counted = sum(
        each.result.feedback.rows - _early(log, window)
        for window in windows
        for each in inspect(log, stats, window)
        if each.result.feedback is not None
    )
    assert counted == 140


def _early(log: PredictionLog, window: Window) -> int:
    """Labels on rows of the window that arrived after it: a run at its end would not have seen them."""
    rows = log.window(window.since_us, window.until_us)
    return sum(bool(row.feedback) and row.feedback[-1].time_us >= window.until_us for row in rows)


def test_each_version_has_its_own(log: PredictionLog, stats: ReferenceStats) -> None:
    label(log, fill(log, days_ago=7, version="1"), 0, hours_ago=2)
    fill(log, days_ago=0.5, version="2")
    found = {each.result.model_version: each.result for each in inspect(log, stats)}
    assert list(found) == ["1", "2"]  # the version that answers is the last
    assert "decline" in found["1"].conditions
    assert found["2"].feedback is None


def test_labels_of_unknown_classes_and_of_long_ago_count_nowhere(log: PredictionLog, stats: ReferenceStats) -> None:
    label(log, fill(log, days_ago=7, rows=10), 5, hours_ago=2)
    label(log, fill(log, days_ago=40, rows=10), 0, hours_ago=2)
    assert inspect(log, stats) == []


def test_a_log_elsewhere_counts_the_same(log: PredictionLog) -> None:
    rng = np.random.default_rng(3)
    for version in "12":
        for row in fill(log, days_ago=3, version=version, rows=20) + fill(log, days_ago=0.5, version=version, rows=20):
            for hours_ago in rng.uniform(-24, 60, rng.integers(0, 3)):
                label(log, [row], int(rng.integers(0, 3)), hours_ago=hours_ago)
    oldest_us = NOW_US - 30 * DAY_US
    here = set(LocalRows(log).late_feedback(WINDOW, oldest_us))
    labelled = log.latest(1000, role="champion", with_feedback=True)
    assert here == set(windows._late_feedback(labelled, WINDOW, oldest_us))
    assert len({each.model for each in here}) == 2
    in_pages = log.late_feedback_pages(WINDOW.since_us, WINDOW.until_us, oldest_us=oldest_us, page_rows=3)
    assert sorted(row[5] for page in in_pages for row in page) == sorted(each.prediction_id for each in here)


def test_labels_on_sample_pictures_count_nowhere(log: PredictionLog, stats: ReferenceStats) -> None:
    label(log, fill(log, days_ago=7, client=SAMPLES), 0, hours_ago=2)
    assert inspect(log, stats) == []
    labelled = log.latest(1000, role="champion", with_feedback=True)
    assert list(windows._late_feedback(labelled, WINDOW, NOW_US - 30 * DAY_US)) == []


def test_a_window_of_a_number_of_rows_has_none(log: PredictionLog, stats: ReferenceStats) -> None:
    label(log, fill(log, days_ago=7), 0, hours_ago=2)
    window = dataclasses.replace(WINDOW, rows=50)
    assert late_labels.count(LocalRows(log), window, lambda _: stats) == ({}, {})


@pytest.mark.parametrize(
    ("window", "ends_now"),
    [(WINDOW, True), (Window(0, FOREVER_US, 10), False), (Window(NOW_US - 2 * DAY_US, NOW_US - DAY_US), False)],
)
def test_only_a_window_of_time_that_ends_now_tells_of_silence(
    log: PredictionLog, window: Window, ends_now: bool
) -> None:
    fill(log, days_ago=0.5)
    around = context.look_around(LocalRows(log), window, {}, References(MODEL_NAME, Path()), now_us=NOW_US, due_us=0)
    assert around.context.ends_now == ends_now
