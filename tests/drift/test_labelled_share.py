"""A decline by feedback: people who judge wrong answers more often cause no alarm once rows were drawn at random."""

import dataclasses

import numpy as np
import pytest

from fashion.config.compose import compose, load_as
from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.data.dataset import Dataset
from fashion.drift import inspection, verdict
from fashion.drift.labelled_share import CHOSEN
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.predictions import random_share
from fashion.predictions.batch import Batch
from fashion.predictions.hashing import hash_texts
from fashion.predictions.record import REVIEW, UNLABELLED, ModelId

ROWS = 1000


@pytest.fixture(scope="module")
def settings() -> DecisionConfig:
    decision = load_as(DriftConfig, compose(root=DriftConfig.root)).decision
    return DecisionConfig(**{**vars(decision), "resplits": 0})


@pytest.fixture(scope="module")
def window(tiny_package: Package, small_dataset: Dataset) -> tuple[Batch, np.ndarray]:
    """Usual pictures without labels, and what they are."""
    images, truth = small_dataset.test.images[:ROWS], small_dataset.test.labels[:ROWS]
    count = len(images)
    ids = [f"picture {number}" for number in range(count)]  # the same draw in each run: 1 of 20 misses the interval
    model = ModelId.of("fashion", 1, tiny_package.digest)
    batch = Batch(
        Predictor(tiny_package).predict(images),
        np.full(count, UNLABELLED, np.int64),
        np.arange(1, count + 1),
        ids,
        [f"{number:064x}" for number in range(count)],
        [model] * count,
        sources=[None] * count,
    )
    return batch, truth


def inspect(
    batch: Batch, package: Package, settings: DecisionConfig, *, max_plot_rows: int = 10_000, parts: int = 1
) -> DriftResult:
    reference = ReferenceStats.of(package, Reference.of(package))
    divided = np.array_split(np.arange(len(batch)), parts)
    counted = [
        inspection.count([batch[rows.tolist()]], lambda _: reference, max_plot_rows=max_plot_rows, max_examples=0)
        for rows in divided
    ]
    (found,), _ = inspection.decide(counted, lambda _: reference, settings)
    return found.result


def labelled(batch: Batch, truth: np.ndarray, rows: np.ndarray, source: str) -> Batch:
    labels, sources = batch.true_labels.copy(), list(batch.sources or ())
    labels[rows] = truth[rows]
    for row in rows:
        sources[row] = source
    return Batch(
        batch.predictions,
        labels,
        batch.times_us,
        batch.prediction_ids,
        batch.image_sha256,
        batch.models,
        sources=sources,
    )


def test_wrong_answers_judged_more_often_cause_no_alarm_once_rows_are_drawn(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    right = batch.predictions.labels == truth
    rng = np.random.default_rng(0)
    chosen = np.flatnonzero(rng.random(len(right)) < np.where(right, 0.2, 0.8))
    reported = labelled(batch, truth, chosen, "page")
    result = inspect(reported, tiny_package, settings)
    assert result.feedback is not None
    assert "decline" in result.conditions
    assert result.feedback.note == CHOSEN
    order = np.array([random_share.draw_order(each) for each in batch.prediction_ids], np.uint64)
    drawn = np.argsort(order)[:100]
    result = inspect(labelled(reported, truth, drawn, REVIEW), tiny_package, settings)
    assert result.feedback is not None
    assert "decline" not in result.conditions
    assert result.feedback.low <= right.mean() <= result.feedback.high
    assert result.feedback.note.startswith("100 rows drawn at random and reviewed decide, not the ")


def test_a_real_decline_is_found_by_the_drawn_rows(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    order = np.array([random_share.draw_order(each) for each in batch.prediction_ids], np.uint64)
    drawn = np.argsort(order)[:100]
    changed = np.where(np.arange(len(truth)) % 2, truth, (truth + 1) % 10)  # the classes mean something else now
    assert "decline" in inspect(labelled(batch, changed, drawn, REVIEW), tiny_package, settings).conditions


def test_the_size_of_a_plot_and_the_division_of_the_window_decide_nothing(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    drawn = np.argsort(hash_texts(batch.prediction_ids))[:100]
    reviewed = labelled(batch, truth, drawn, REVIEW)
    whole = inspect(reviewed, tiny_package, settings)
    small = inspect(reviewed, tiny_package, settings, max_plot_rows=100, parts=3)
    assert whole.feedback is not None
    assert whole.feedback.note.startswith("100 rows drawn at random")
    assert (small.feedback, small.coverage) == (whole.feedback, whole.coverage)


def test_prediction_sets_are_judged_by_the_drawn_rows_too(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    right = batch.predictions.labels == truth
    chosen = np.flatnonzero(~right)  # people judge wrong answers alone
    reported = labelled(batch, truth, chosen, "page")
    before = inspect(reported, tiny_package, settings)
    assert before.coverage is not None
    assert (before.coverage.fallen, before.coverage.note) == (True, CHOSEN)
    drawn = np.argsort(hash_texts(batch.prediction_ids))[:200]
    after = inspect(labelled(reported, truth, drawn, REVIEW), tiny_package, settings)
    assert after.coverage is not None
    assert (after.coverage.rows, after.coverage.fallen) == (200, False)
    assert after.coverage.note.startswith("200 rows drawn at random and reviewed decide, not the ")
    assert "coverage" not in after.conditions


def test_of_a_picture_that_was_sent_often_one_row_is_judged(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    often = dataclasses.replace(batch, image_sha256=[f"{row % 500:064x}" for row in range(len(batch))])
    drawn = np.argsort(hash_texts(batch.prediction_ids))[:200]
    pictures = {often.image_sha256[row] for row in drawn}
    found = inspect(labelled(often, truth, drawn, REVIEW), tiny_package, settings).feedback
    assert found is not None
    assert found.rows == len(pictures) < 200


def test_late_rows_are_not_among_those_that_were_drawn(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    reference = ReferenceStats.of(tiny_package, Reference.of(tiny_package))
    for reviewed, late in ((100, 0), (0, 30)):
        drawn = np.argsort(hash_texts(batch.prediction_ids))[:reviewed]
        judged = labelled(batch, truth, drawn, REVIEW)
        counted = inspection.count([judged], lambda _: reference, max_plot_rows=100, max_examples=0)
        (rows,) = counted.values()
        assert rows.counts is not None
        rows.counts.late[0, 0] += 30
        (found,), _ = inspection.decide([counted], lambda _: reference, settings)
        assert found.result.feedback is not None
        assert found.result.feedback.late == late
        said = verdict.describe_feedback(found.result)
        assert ("of them on earlier predictions" in said) == bool(late)
