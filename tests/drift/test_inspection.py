"""One pass over a window: each version on its own, a uniform sample, and the most unusual rows."""

import dataclasses
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from support.imagined import CLASSES, HARMLESS, SETTINGS, sample_predictions

from fashion.drift import decision, inspection
from fashion.drift.inspection import WindowDecision
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import empty_window, with_unjudged
from fashion.drift.window_part import Inspection
from fashion.model.predictor import Predictions
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch, concatenate
from fashion.predictions.record import OWN_CLIENTS, UNLABELLED, ModelId


@pytest.fixture(scope="module")
def reference_stats() -> ReferenceStats:
    rows = sample_predictions(2000, seed=1)
    return ReferenceStats(Reference(rows.labels, rows), HARMLESS, CLASSES)


def model(version: str) -> ModelId:
    return ModelId("shoes", version, "0123456789abcdef")


def batch(rows: Predictions, *, version: str = "1", start: int = 0) -> Batch:
    numbers = range(start, start + len(rows.labels))
    return Batch(
        rows,
        np.full(len(rows.labels), UNLABELLED),
        np.array([1000 + number for number in numbers]),
        [f"id-{number:06d}" for number in numbers],
        [f"{number:064x}" for number in numbers],
        [model(version)] * len(rows.labels),
    )


def mixed(first: Batch, second: Batch) -> Batch:
    """Rows of two in turn."""
    both = concatenate([first, second])
    order = np.argsort([*range(0, 2 * len(first), 2), *range(1, 2 * len(second), 2)], kind="stable")
    return both[order.tolist()]


def inspect(
    batches: list[Batch], reference_stats: ReferenceStats, *, known: tuple[str, ...] = ("1",), **more: int
) -> list[Inspection]:
    return inspect_all(batches, reference_stats, known=known, **more).inspections


def inspect_all(
    batches: list[Batch], reference_stats: ReferenceStats, *, known: tuple[str, ...] = ("1",), **more: int
) -> WindowDecision:
    sizes = {"max_plot_rows": 100, "max_examples": 5, **more}

    def walk() -> Iterator[Batch]:
        yield from batches

    models = dict.fromkeys(map(model, known), reference_stats)
    return inspection.inspect(walk(), models.get, SETTINGS, **sizes)


def test_versions_are_decided_on_their_own_rows(reference_stats: ReferenceStats) -> None:
    usual = batch(sample_predictions(200, seed=7), version="1")
    moved = batch(sample_predictions(200, seed=8, shift=1.0), version="2", start=200)
    found = inspect([mixed(usual, moved)], reference_stats, known=("1", "2"))
    assert [(each.result.model_version, each.result.decision) for each in found] == [("1", "no_drift"), ("2", "drift")]
    (alone,) = inspect([usual], reference_stats)
    assert found[0].result == alone.result


def test_the_version_of_the_latest_row_comes_last(reference_stats: ReferenceStats) -> None:
    newer, older = (
        batch(sample_predictions(60, seed=7), version="1", start=500),
        batch(sample_predictions(60, seed=8), version="2"),
    )
    found = inspect([newer, older], reference_stats, known=("1", "2"))
    assert [each.result.model_version for each in found] == ["2", "1"]


@pytest.mark.fault("two models share a log, one of them with other classes")
def test_rows_without_a_reference_are_counted_and_judged_with_no_others(reference_stats: ReferenceStats) -> None:
    own = batch(sample_predictions(60, seed=7))
    two_classes = dataclasses.replace(
        batch(sample_predictions(30, seed=9), start=300), models=[model("1")._replace(name="bags")] * 30
    )
    two_classes = dataclasses.replace(
        two_classes,
        predictions=dataclasses.replace(
            two_classes.predictions, probabilities=two_classes.predictions.probabilities[:, :2]
        ),
    )
    other_package = dataclasses.replace(
        batch(sample_predictions(40, seed=8, shift=9.0), start=60), models=[model("1")._replace(digest="f" * 16)] * 40
    )
    found = inspect_all([own, two_classes, other_package, two_classes], reference_stats)
    (known,) = (each.result for each in found.inspections)
    assert (known.model_name, known.model_version, known.rows, known.decision) == ("shoes", "1", 60, "no_drift")
    assert known.unreadable == 0
    assert found.unjudged == {two_classes.models[0]: 60, other_package.models[0]: 40}


def test_a_result_says_what_of_its_window_was_not_judged(reference_stats: ReferenceStats) -> None:
    (judged,) = inspect([batch(sample_predictions(60, seed=7))], reference_stats)
    assert "unjudged" not in judged.result.conditions
    assert "unjudged" not in with_unjudged(judged.result, "30 are of another model").conditions
    assert "unjudged" in with_unjudged(judged.result, "30 are of version 9", ("shoes version 9",)).conditions
    assert "unjudged" in judged.result.testable
    nothing = with_unjudged(empty_window("shoes", (1, 2), SETTINGS), "30 are of another model")
    assert nothing.reason == "nothing in this window can be judged. 30 are of another model"


def test_what_this_project_sends_itself_is_no_traffic(reference_stats: ReferenceStats) -> None:
    usual = batch(sample_predictions(200, seed=7))
    checks = batch(sample_predictions(60, seed=8, shift=3.0), start=200)
    usual = dataclasses.replace(usual, clients=["shop"] * 100 + [None] * 100)
    checks = dataclasses.replace(checks, clients=list(OWN_CLIENTS) * 20)
    (found,) = inspect([mixed(usual, checks)], reference_stats)
    (alone,) = inspect([usual], reference_stats)
    assert found.result == alone.result
    assert inspect([checks], reference_stats) == []


def test_an_empty_window_gives_nothing(reference_stats: ReferenceStats) -> None:
    assert inspect_all([], reference_stats) == ([], {})


def test_few_rows_are_all_sampled(reference_stats: ReferenceStats) -> None:
    (found,) = inspect(
        [batch(sample_predictions(60, seed=7)), batch(sample_predictions(40, seed=8), start=60)], reference_stats
    )
    assert found.sample is not None
    assert list(found.sample.prediction_ids) == [f"id-{number:06d}" for number in range(100)]


def test_many_rows_are_sampled_uniformly(reference_stats: ReferenceStats) -> None:
    parts = [batch(sample_predictions(500, seed=seed), start=500 * seed) for seed in range(20)]
    (found,) = inspect(parts, reference_stats, max_plot_rows=1000)
    assert found.result.rows == 10_000
    assert found.sample is not None
    numbers = np.array([int(each[3:]) for each in found.sample.prediction_ids])
    assert len(set(numbers)) == 1000
    by_part = np.bincount(numbers // 500, minlength=20)
    assert by_part.min() > 20
    assert by_part.max() < 85
    (again,) = inspect(parts, reference_stats, max_plot_rows=1000)
    assert again.sample is not None
    assert again.sample.prediction_ids == found.sample.prediction_ids


def test_the_most_unusual_rows_are_found_wherever_they_lie(reference_stats: ReferenceStats) -> None:
    parts = [batch(sample_predictions(200, seed=seed), start=200 * seed) for seed in range(10)]
    for part, row, distance in ((2, 17, 30.0), (9, 199, 50.0), (0, 0, 40.0)):
        parts[part].predictions.statistics[row, 3] = distance
    (found,) = inspect(parts, reference_stats, max_examples=3)
    assert [each.prediction_id for each in found.unusual_rows] == ["id-001999", "id-000000", "id-000417"]
    assert found.unusual_rows[0].image_sha256 == f"{1999:064x}"
    assert found.unusual_rows[0].distance > found.unusual_rows[1].distance > 25


def test_no_examples_are_kept_if_none_are_wanted(reference_stats: ReferenceStats) -> None:
    (found,) = inspect([batch(sample_predictions(60, seed=7))], reference_stats, max_examples=0)
    assert found.unusual_rows == ()


def test_unreadable_rows_are_neither_sampled_nor_examples(reference_stats: ReferenceStats) -> None:
    spoilt = batch(sample_predictions(60, seed=7))
    spoilt.predictions.embeddings[5] = np.nan
    (found,) = inspect([spoilt], reference_stats, max_examples=60)
    assert found.result.unreadable == 1
    assert found.sample is not None
    assert "id-000005" not in found.sample.prediction_ids
    assert len(found.unusual_rows) == 59


def test_feedback_with_an_unknown_class_is_ignored(reference_stats: ReferenceStats) -> None:
    said = batch(sample_predictions(60, seed=7))
    said.true_labels[:3] = [len(CLASSES), 99, 0]
    (found,) = inspect([said], reference_stats, max_examples=60)
    assert found.result.feedback is not None
    assert found.result.feedback.rows == 1
    assert found.sample is not None
    assert found.sample.true_labels.tolist() == [UNLABELLED, UNLABELLED, 0, *[UNLABELLED] * 57]
    assert sorted({row.true_label for row in found.unusual_rows}) == [UNLABELLED, 0]


@pytest.mark.parametrize("max_pictures", [300, 10_000])
@pytest.mark.parametrize("num_parts", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("seed", [0, 1])
def test_parts_of_a_window_add_up_to_the_whole_bit_for_bit(
    reference_stats: ReferenceStats, num_parts: int, seed: int, max_pictures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of two known versions and an unknown one, some unreadable, some repeated, some with feedback or a client."""
    rng = np.random.default_rng(seed)
    rows = batch(sample_predictions(1500, seed=11, shift=0.3))
    rows.predictions.embeddings[rng.integers(1500, size=9)] = np.nan
    for column in (rows.predictions.statistics, rows.predictions.embeddings):
        column[rng.integers(1500, size=40)] = 9.0  # one picture, sent often: all are equally far
    rows = dataclasses.replace(
        rows,
        true_labels=np.where(rng.random(1500) < 0.2, rng.integers(len(CLASSES), size=1500), UNLABELLED),
        models=[model(version) for version in rng.choice(["1", "2", "9"], 1500, p=[0.6, 0.3, 0.1])],
        clients=[None if each == 0 else f"client {each}" for each in rng.integers(5, size=1500)],
    )
    again = rng.integers(1500, size=700)  # retried, perhaps by another client
    retried = dataclasses.replace(rows[again.tolist()], prediction_ids=[f"id-9{each:05d}" for each in range(700)])
    rows = concatenate([rows, retried])
    known = {model("1"): reference_stats, model("2"): reference_stats}
    monkeypatch.setattr(decision, "num_pictures", lambda classes: max_pictures)
    whole = inspection.inspect([rows], known.get, SETTINGS, max_plot_rows=100, max_examples=10)

    owners = rng.integers(num_parts, size=2200)
    parts = []
    for part in range(num_parts):
        own = rng.permutation(np.flatnonzero(owners == part))
        batches = [rows[piece.tolist()] for piece in np.array_split(own, 3) if len(piece)]
        counted = inspection.count(batches, known.get, max_plot_rows=100, max_examples=10)
        parts.append(pickle.loads(pickle.dumps(counted)))
    rng.shuffle(parts)
    divided = inspection.decide(parts, known.get, SETTINGS)

    assert [each.result for each in divided.inspections] == [each.result for each in whole.inspections]
    assert list(whole.unjudged) == [model("9")]
    assert divided.unjudged == whole.unjudged
    for mine, theirs in zip(divided.inspections, whole.inspections, strict=True):
        assert [dataclasses.astuple(row) for row in mine.unusual_rows] == [
            dataclasses.astuple(row) for row in theirs.unusual_rows
        ]
        assert mine.sample is not None
        assert theirs.sample is not None
        assert mine.sample.prediction_ids == theirs.sample.prediction_ids
        for field in dataclasses.fields(Predictions):
            ours, others = (getattr(each.sample.predictions, field.name) for each in (mine, theirs))
            assert ours.tobytes() == others.tobytes()
