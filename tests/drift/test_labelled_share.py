"""A decline by feedback: people who judge wrong answers more often cause no alarm once rows were drawn at random."""

import numpy as np
import pytest

from fashion.config.compose import compose, load_as
from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.data.dataset import Dataset
from fashion.drift import inspection
from fashion.drift.labelled_share import CHOSEN
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.predictions import random_share
from fashion.predictions.batch import Batch
from fashion.predictions.record import REVIEW, UNLABELLED, ModelId, new_prediction_id

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
    ids = [new_prediction_id() for _ in range(count)]
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


def inspect(batch: Batch, package: Package, settings: DecisionConfig) -> DriftResult:
    reference = ReferenceStats.of(package, Reference.of(package))
    counted = inspection.count([batch], lambda _: reference, max_plot_rows=10_000, max_examples=0)
    (found,), _ = inspection.decide([counted], lambda _: reference, settings)
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
