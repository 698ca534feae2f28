"""What people accepted is the new normal, and nothing else is."""

import dataclasses
import io
import secrets
from pathlib import Path

import numpy as np
import pytest
from support.imagined import CLASSES, HARMLESS, SETTINGS, decide, sample_predictions

from fashion.drift import accepted
from fashion.drift.accepted import Accepted, DamagedRows
from fashion.drift.reference_stats import ReferenceStats
from fashion.drift.result import result_as_dict
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import CHECK, UNLABELLED, ModelId, new_prediction_id
from fashion.storage.address import open_store
from fashion.storage.blobs import Store

MODEL = ModelId("shoes", "3", "0" * 16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


@pytest.fixture(scope="module")
def reference() -> Reference:
    rows = sample_predictions(2000, seed=1)
    truth = rows.labels.copy()
    truth[:200] = (truth[:200] + 1) % 3
    return Reference(truth, rows)


def batch(rows: int, *, seed: int, shift: float, model: ModelId = MODEL) -> Batch:
    predictions = sample_predictions(rows, seed=seed, shift=shift)
    ids = [new_prediction_id() for _ in range(rows)]
    return Batch(
        predictions,
        np.full(rows, UNLABELLED),
        np.arange(rows),
        ids,
        [secrets.token_hex(32) for _ in ids],
        [model] * rows,
    )


def accept(store: Store, report: str, batches: list[Batch], *, min_pictures: int = 1) -> Accepted:
    return accepted.accept(store, MODEL, report, batches, classes=len(CLASSES), min_pictures=min_pictures)


def stats(reference: Reference, store: Store) -> ReferenceStats:
    found = accepted.load(store, MODEL)
    return ReferenceStats(reference, HARMLESS, CLASSES, accepted=None if found is None else found.predictions)


def test_what_was_accepted_is_no_drift_and_what_is_beyond_it_is(reference: Reference, store: Store) -> None:
    usual, new, beyond = (sample_predictions(500, seed=7, shift=shift) for shift in (0.0, 0.5, 1.0))
    assert [decide(stats(reference, store), each).decision for each in (usual, new, beyond)] == [
        "no_drift",
        "drift",
        "drift",
    ]
    accept(store, "R1", [batch(1000, seed=8, shift=0.5)])
    assert [decide(stats(reference, store), each).decision for each in (usual, new, beyond)] == [
        "drift",
        "no_drift",
        "drift",
    ]
    assert accepted.withdraw(store, MODEL)
    assert decide(stats(reference, store), usual).decision == "no_drift"
    assert not accepted.withdraw(store, MODEL)


def test_false_alarms_are_as_rare_as_before(reference: Reference, store: Store) -> None:
    accept(store, "R1", [batch(1000, seed=8, shift=0.5)])
    found = stats(reference, store)
    alarms = sum(
        decide(found, sample_predictions(300, seed=100 + seed, shift=0.5)).decision == "drift" for seed in range(200)
    )
    assert alarms <= 7  # at alpha 0.01; 8 or more of 200 have a chance of 0.1 % then


def test_accuracy_is_still_compared_with_the_held_out_rows(reference: Reference, store: Store) -> None:
    window = sample_predictions(500, seed=7, shift=0.5)
    truth = (window.labels + (np.arange(500) < 250)) % 3
    before = decide(stats(reference, store), window, truth)
    accept(store, "R1", [batch(300, seed=8, shift=0.5)])
    after = decide(stats(reference, store), window, truth)
    assert after.conditions == {"decline", "coverage"}
    assert after.feedback == before.feedback
    assert (after.reference_rows, after.reference_accuracy) == (2000, 0.9)


def test_windows_add_up_and_one_that_is_accepted_twice_counts_once(store: Store) -> None:
    first, second = (batch(300, seed=seed, shift=0.5) for seed in (8, 9))
    for report, rows in (("R1", first), ("R2", second), ("R1", first)):
        found = accept(store, report, [rows[range(100)], rows[range(100, 300)]])
    assert (len(found.keys), found.reports) == (600, ("R2", "R1"))
    again = accepted.load(store, MODEL)
    assert again is not None
    assert np.array_equal(again.predictions.statistics, found.predictions.statistics)
    assert again.reports == found.reports


def test_rows_of_other_versions_and_damaged_ones_are_left_out(store: Store) -> None:
    damaged = batch(10, seed=8, shift=0.5)
    damaged.predictions.statistics[:4] = np.nan
    other = batch(10, seed=8, shift=0.5, model=MODEL._replace(version="4"))
    assert len(accept(store, "R1", [damaged, other]).keys) == 6
    few = "the log holds 6 distinct pictures of shoes version 3 .* report R2: 7 are needed"
    with pytest.raises(ValueError, match=few):
        accept(store, "R2", [damaged, other, damaged], min_pictures=7)
    found = accepted.load(store, MODEL)
    assert found is not None
    assert found.reports == ("R1",)
    assert accepted.load(store, MODEL._replace(digest="1" * 16)) is None


def test_pictures_that_were_accepted_before_are_not_accepted_again(store: Store) -> None:
    first = batch(100, seed=8, shift=0.5)
    again = dataclasses.replace(first, prediction_ids=[new_prediction_id() for _ in range(100)])
    accept(store, "R1", [first])
    assert len(accept(store, "R2", [again, batch(20, seed=9, shift=0.5)]).keys) == 120
    with pytest.raises(ValueError, match="100 distinct pictures .* 101 are needed"):
        accept(store, "R3", [again, first], min_pictures=101)


def test_what_the_decision_does_not_count_is_not_accepted(store: Store) -> None:
    rows = batch(30, seed=8, shift=0.5)
    rows.predictions.labels[:5] = 3
    rows.predictions.confidences[5:7] = np.nan
    wider = dataclasses.replace(rows.predictions, probabilities=np.zeros((30, 4), np.float32))
    others = dataclasses.replace(batch(10, seed=9, shift=0.5), clients=[*[CHECK] * 4, *[None] * 6])
    other_classes = dataclasses.replace(batch(30, seed=9, shift=0.5), predictions=wider)
    assert len(accept(store, "R1", [rows, other_classes, others]).keys) == 23 + 6


def test_rows_that_an_earlier_version_stored_are_added_to(store: Store) -> None:
    accept(store, "R1", [batch(50, seed=8, shift=0.5)])
    (name,) = store.list(accepted.FOLDER)
    with np.load(io.BytesIO(store.get(name))) as arrays:
        older = {each: arrays[each] for each in arrays.files if each != "pictures"}
    content = io.BytesIO()
    np.savez_compressed(content, **older)
    store.put(name, content.getvalue())
    assert len(accept(store, "R2", [batch(20, seed=9, shift=0.5)]).keys) == 70


def test_a_window_of_few_clients_or_pictures_is_refused(reference: Reference) -> None:
    compared = ReferenceStats(reference, HARMLESS, CLASSES)
    well = result_as_dict(decide(compared, sample_predictions(300, seed=7, shift=0.5)))
    assert accepted.refusal(well) == ""
    assert accepted.num_classes(well) == 3
    few = result_as_dict(decide(compared, sample_predictions(20, seed=7)))
    assert accepted.refusal(few).endswith("was not judged: 20 rows are too few to judge: 50 are needed")
    alike = {**well, "traffic": {**well["traffic"], "clients": 12, "worth": 14.2}}
    assert "the pictures of its 12 clients are worth only 14 independent ones" in accepted.refusal(alike)
    assert accepted.refusal({**well, "traffic": None}) == ""  # of an earlier version


def test_a_prediction_can_be_forgotten(store: Store) -> None:
    rows = batch(50, seed=8, shift=0.5)
    accept(store, "R1", [rows])
    assert accepted.forget(store, rows.prediction_ids[7], dry_run=True) == 1
    assert accepted.forget(store, rows.prediction_ids[7]) == 1
    assert accepted.forget(store, rows.prediction_ids[7]) == 0
    found = accepted.load(store, MODEL)
    assert found is not None
    assert len(found.keys) == 49
    assert not (found.predictions.statistics == rows.predictions.statistics[7]).all(axis=1).any()


@pytest.mark.fault("damaged accepted rows")
def test_damaged_rows_are_named_with_the_remedy(store: Store) -> None:
    accept(store, "R1", [batch(50, seed=8, shift=0.5)])
    (name,) = store.list(accepted.FOLDER)
    store.put(name, store.get(name)[:-100])
    with pytest.raises(DamagedRows, match=r"are damaged .*`fashion drift accept REPORT --undo` removes them"):
        accepted.load(store, MODEL)
    assert accepted.withdraw(store, MODEL)


def test_severity_is_still_measured_against_the_held_out_rows(reference: Reference, store: Store) -> None:
    window = sample_predictions(500, seed=7, sharpness=0.5)
    before = decide(stats(reference, store), window, settings=dataclasses.replace(SETTINGS, resplits=0))
    accept(store, "R1", [batch(500, seed=8, shift=0.5)])
    after = decide(stats(reference, store), window)
    assert before.severity is not None
    assert after.severity is not None
    assert after.severity == before.severity
    assert after.estimated == before.estimated
