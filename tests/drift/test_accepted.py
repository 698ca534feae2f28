"""What people accepted is the new normal, and nothing else is."""

import dataclasses
import secrets
from pathlib import Path

import numpy as np
import pytest
from support.imagined import CLASSES, HARMLESS, SETTINGS, decide, sample_predictions

from fashion.drift import accepted
from fashion.drift.accepted import DamagedRows
from fashion.drift.reference_stats import ReferenceStats
from fashion.model.reference import Reference
from fashion.predictions.batch import Batch
from fashion.predictions.record import UNLABELLED, ModelId, new_prediction_id
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
    accepted.accept(store, MODEL, "R1", [batch(1000, seed=8, shift=0.5)])
    assert [decide(stats(reference, store), each).decision for each in (usual, new, beyond)] == [
        "drift",
        "no_drift",
        "drift",
    ]
    assert accepted.withdraw(store, MODEL)
    assert decide(stats(reference, store), usual).decision == "no_drift"
    assert not accepted.withdraw(store, MODEL)


def test_false_alarms_are_as_rare_as_before(reference: Reference, store: Store) -> None:
    accepted.accept(store, MODEL, "R1", [batch(1000, seed=8, shift=0.5)])
    found = stats(reference, store)
    alarms = sum(
        decide(found, sample_predictions(300, seed=100 + seed, shift=0.5)).decision == "drift" for seed in range(200)
    )
    assert alarms <= 7  # at alpha 0.01; 8 or more of 200 have a chance of 0.1 % then


def test_accuracy_is_still_compared_with_the_held_out_rows(reference: Reference, store: Store) -> None:
    window = sample_predictions(500, seed=7, shift=0.5)
    truth = (window.labels + (np.arange(500) < 250)) % 3
    before = decide(stats(reference, store), window, truth)
    accepted.accept(store, MODEL, "R1", [batch(300, seed=8, shift=0.5)])
    after = decide(stats(reference, store), window, truth)
    assert after.conditions == {"decline", "coverage"}
    assert after.feedback == before.feedback
    assert (after.reference_rows, after.reference_accuracy) == (2000, 0.9)


def test_windows_add_up_and_one_that_is_accepted_twice_counts_once(store: Store) -> None:
    first, second = (batch(300, seed=seed, shift=0.5) for seed in (8, 9))
    for report, rows in (("R1", first), ("R2", second), ("R1", first)):
        found = accepted.accept(store, MODEL, report, [rows[range(100)], rows[range(100, 300)]])
    assert (len(found.keys), found.reports) == (600, ("R2", "R1"))
    again = accepted.load(store, MODEL)
    assert again is not None
    assert np.array_equal(again.predictions.statistics, found.predictions.statistics)
    assert again.reports == found.reports


def test_rows_of_other_versions_and_damaged_ones_are_left_out(store: Store) -> None:
    damaged = batch(10, seed=8, shift=0.5)
    damaged.predictions.statistics[:4] = np.nan
    other = batch(10, seed=8, shift=0.5, model=MODEL._replace(version="4"))
    assert len(accepted.accept(store, MODEL, "R1", [damaged, other]).keys) == 6
    with pytest.raises(ValueError, match="the log holds no rows of shoes version 9 .* report R1"):
        accepted.accept(store, MODEL._replace(version="9"), "R1", [other])
    assert accepted.load(store, MODEL._replace(digest="1" * 16)) is None


def test_a_prediction_can_be_forgotten(store: Store) -> None:
    rows = batch(50, seed=8, shift=0.5)
    accepted.accept(store, MODEL, "R1", [rows])
    assert accepted.forget(store, rows.prediction_ids[7]) == 1
    assert accepted.forget(store, rows.prediction_ids[7]) == 0
    found = accepted.load(store, MODEL)
    assert found is not None
    assert len(found.keys) == 49
    assert not (found.predictions.statistics == rows.predictions.statistics[7]).all(axis=1).any()


@pytest.mark.fault("damaged accepted rows")
def test_damaged_rows_are_named_with_the_remedy(store: Store) -> None:
    accepted.accept(store, MODEL, "R1", [batch(50, seed=8, shift=0.5)])
    (name,) = store.list(accepted.FOLDER)
    store.put(name, store.get(name)[:-100])
    with pytest.raises(DamagedRows, match=r"are damaged .*`fashion drift accept REPORT --undo` removes them"):
        accepted.load(store, MODEL)
    assert accepted.withdraw(store, MODEL)


def test_severity_is_still_measured_against_the_held_out_rows(reference: Reference, store: Store) -> None:
    window = sample_predictions(500, seed=7, sharpness=0.5)
    before = decide(stats(reference, store), window, settings=dataclasses.replace(SETTINGS, resplits=0))
    accepted.accept(store, MODEL, "R1", [batch(500, seed=8, shift=0.5)])
    after = decide(stats(reference, store), window)
    assert before.severity is not None
    assert after.severity is not None
    assert after.severity.signals.confidence_drop == before.severity.signals.confidence_drop
    assert after.estimated == before.estimated
