"""A decline by feedback: people who judge wrong answers more often cause no alarm once rows were drawn at random."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.log_rows import record

from fashion.config.compose import compose, load_as
from fashion.config.drift import DecisionConfig, DriftConfig
from fashion.data.dataset import Dataset
from fashion.drift import inspection, verdict
from fashion.drift.distinct import Origins
from fashion.drift.judged_pictures import late_rows
from fashion.drift.labelled_share import CHOSEN
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import DriftResult
from fashion.drift.reviews import Reviews
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.model.reference import Reference
from fashion.predictions import random_share, withdrawal
from fashion.predictions.batch import Batch
from fashion.predictions.hashing import hash_texts
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, REVIEW, UNLABELLED, Feedback, ModelId
from fashion.predictions.windows import LocalRows
from fashion.predictions.withdrawal import Decision
from fashion.storage.address import open_store

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
    batch: Batch,
    package: Package,
    settings: DecisionConfig,
    reviews: Reviews | None = None,
    *,
    max_plot_rows: int = 10_000,
    parts: int = 1,
) -> DriftResult:
    reference = ReferenceStats.of(package, Reference.of(package))
    divided = np.array_split(np.arange(len(batch)), parts)
    counted = [
        inspection.count([batch[rows.tolist()]], lambda _: reference, max_plot_rows=max_plot_rows, max_examples=0)
        for rows in divided
    ]
    (found,), _ = inspection.decide(counted, lambda _: reference, settings, reviews)
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
        labels = np.zeros(30, np.int64)
        rows.counts.late.add(late_rows(labels, labels, Origins.unknown(30, 10**6)))
        (found,), _ = inspection.decide([counted], lambda _: reference, settings)
        assert found.result.feedback is not None
        assert found.result.feedback.late == late
        said = verdict.describe_feedback(found.result)
        assert ("of them on earlier predictions" in said) == bool(late)


def test_pictures_that_nobody_can_label_do_not_end_the_random_sample(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    drawn = np.argsort(np.array([random_share.draw_order(each) for each in batch.prediction_ids], np.uint64))[:103]
    skipped, lost = batch.image_sha256[drawn[0]], {batch.image_sha256[row] for row in drawn[1:3]}
    reviewed = labelled(batch, truth, drawn[3:], REVIEW)

    def note(reviews: Reviews) -> str:
        feedback = inspect(reviewed, tiny_package, settings, reviews).feedback
        assert feedback is not None
        return feedback.note

    assert note(Reviews(skipped=frozenset([skipped]))) == CHOSEN
    assert note(Reviews(is_stored=lambda sha256: sha256 not in lost)) == CHOSEN
    both = Reviews(skipped=frozenset([skipped]), is_stored=lambda sha256: sha256 not in lost)
    assert note(both).startswith("100 rows drawn at random and reviewed decide")


def test_labels_of_a_file_on_chosen_rows_do_not_pass_for_drawn_where_no_picture_is_stored(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    chosen = labelled(batch, truth, np.flatnonzero(batch.predictions.labels != truth)[:60], REVIEW)
    result = inspect(chosen, tiny_package, settings, Reviews(is_stored=lambda sha256: False))
    assert result.feedback is not None
    assert result.feedback.note == CHOSEN


def test_a_review_counts_for_every_row_of_its_picture(
    window: tuple[Batch, np.ndarray], tiny_package: Package, settings: DecisionConfig
) -> None:
    batch, truth = window
    drawn = np.argsort(np.array([random_share.draw_order(each) for each in batch.prediction_ids], np.uint64))[:100]
    reviewed = labelled(batch, truth, drawn[1:], REVIEW)  # the first one was, on a row of before the window
    result = inspect(reviewed, tiny_package, settings)
    assert result.feedback is not None
    assert result.feedback.note == CHOSEN
    first = (batch.models[0].name, batch.image_sha256[drawn[0]])
    result = inspect(reviewed, tiny_package, settings, Reviews({first: int(truth[drawn[0]])}))
    assert result.feedback is not None
    assert result.feedback.note.startswith("100 rows drawn at random and reviewed decide")


def test_reviews_are_read_by_picture_with_what_nobody_could_tell(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "images"))
    first, again, odd, other = (record(time_us=number, model_name="m") for number in range(4))
    again = dataclasses.replace(again, image_sha256=first.image_sha256)
    odd, other = (dataclasses.replace(each, image_sha256=sha * 64) for each, sha in ((odd, "e"), (other, "f")))
    with PredictionLog(tmp_path / "log.db") as log:
        log.append([first, again, odd, other])
        log.append_feedback(
            [
                Feedback(first.prediction_id, 2, REVIEW, 10),
                Feedback(again.prediction_id, 1, REVIEW, 5),
                Feedback(other.prediction_id, 1, "ann", 5),
            ]
        )
        log.decide([withdrawal.skip(each.prediction_id, who="bob", now_us=20) for each in (odd, other)])
        log.decide([Decision("restore", None, other.prediction_id, 0, FOREVER_US, 30, "bob", "it is a coat")])
        found = Reviews.read(LocalRows(log), store)
    assert found.labels == {("m", first.image_sha256): 2}
    assert found.skipped == {"e" * 64}
    assert not found.is_stored(first.image_sha256)
