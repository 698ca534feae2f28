"""When a training is due: a condition holds, enough feedback is new, and the cooldown is over."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.log_rows import MODEL_NAME
from support.log_rows import record as logged

from fashion.config.drift import RetrainConfig
from fashion.drift import retraining
from fashion.drift.reports import state_of
from fashion.drift.retraining import RetrainDecision
from fashion.images import image_store
from fashion.predictions.labelled import TEST_ROWS, Believed
from fashion.predictions.record import Feedback, LoggedPrediction
from fashion.predictions.sources import FeedbackSource, Trust
from fashion.storage.address import open_store
from fashion.storage.blobs import Store, StoreUnavailable

RECORD = logged()
PROVEN = Believed(Trust((FeedbackSource(["page"], reviewed=30),)))
NOW = 1_800_000_000.0
HOUR = 3600.0
SETTINGS = RetrainConfig(
    enabled=True,
    on=("harmful", "decline"),
    cooldown_hours=24,
    min_new_labels=5,
    overrides="tuning=off",
    deploy=True,
    deploy_overrides="",
)


def labelled(count: int, *times: float, source: str = "page") -> list[LoggedPrediction]:
    """Rows with feedback given at these times, seconds since 1970; by default a minute ago."""
    record = RECORD
    said = [Feedback(record.prediction_id, 1, source, int(each * 1e6)) for each in times or (NOW - 60,)]
    return [LoggedPrediction(record, tuple(said))] * count


def decide(
    store: Store,
    conditions: Sequence[str] = ("decline",),
    rows: Sequence[LoggedPrediction] | None = None,
    *,
    settings: RetrainConfig = SETTINGS,
    now: float = NOW,
    believed: Believed = PROVEN,
) -> RetrainDecision:
    """Decide; by default, everything that a training needs is given."""
    return retraining.decide(
        conditions,
        labelled(5) if rows is None else rows,
        settings,
        store,
        model_name=MODEL_NAME,
        believed=believed,
        images=store,
        clock=lambda: now,
    )


def record_start(store: Store, when: float) -> None:
    retraining.record_start(store, model_name=MODEL_NAME, clock=lambda: when)


def learn(store: Store, when: float) -> None:
    retraining.record_learnt(store, when, model_name=MODEL_NAME)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Of the state, and of the one picture that all rows are on."""
    store = open_store(str(tmp_path / "reports"))
    image_store.put(store, np.zeros((28, 28), np.uint8), RECORD.image_sha256)
    return store


def test_a_training_is_due_if_a_condition_holds_and_enough_feedback_is_new(store: Store) -> None:
    assert decide(store) == RetrainDecision(True, "decline, and at least 5 rows with feedback are new")


def test_retraining_that_is_off_says_how_to_turn_it_on(store: Store) -> None:
    settings = dataclasses.replace(SETTINGS, enabled=False)
    assert decide(store, settings=settings) == RetrainDecision(
        False, "retraining is off: retrain.enabled=true turns it on"
    )


@pytest.mark.parametrize("conditions", [[], ["drift"], ["drift", "problem"]])
def test_without_a_configured_condition_nothing_is_trained(conditions: list[str], store: Store) -> None:
    assert decide(store, conditions) == RetrainDecision(False, "no condition for it holds (harmful, decline)")


def test_the_reason_names_exactly_the_configured_conditions(store: Store) -> None:
    answer = decide(store, ["harmful", "drift", "decline"])
    assert answer == RetrainDecision(True, "decline, harmful, and at least 5 rows with feedback are new")


@pytest.mark.parametrize(("hours", "is_due"), [(0, False), (1, False), (21.5, False), (21.7, True), (1000, True)])
def test_the_cooldown_separates_two_trainings(hours: float, is_due: bool, store: Store) -> None:
    record_start(store, NOW - hours * HOUR)
    answer = decide(store, rows=labelled(5, NOW + 1))
    assert answer.train is is_due
    said = f"decline, but the last training began {hours:.1f} hours ago, within the cooldown of 24"
    assert (answer.reason == said) is not is_due


def test_without_a_cooldown_new_feedback_is_enough(store: Store) -> None:
    settings = dataclasses.replace(SETTINGS, cooldown_hours=0)
    learn(store, NOW)
    assert not decide(store, settings=settings).train
    assert decide(store, rows=labelled(5, NOW + 1), settings=settings).train


def test_too_few_rows_with_feedback_are_named(store: Store) -> None:
    assert decide(store, rows=labelled(4)) == RetrainDecision(
        False, "decline, but only 4 rows with feedback are new: 5 are needed"
    )


def test_feedback_before_the_last_training_is_not_new(store: Store) -> None:
    last = NOW - 30 * HOUR
    learn(store, last)
    rows = labelled(2, last - 1) + labelled(3, last) + labelled(4, last + 1)
    assert decide(store, rows=rows).reason.startswith("decline, but only 4 rows with feedback are new")
    assert decide(store, rows=[*rows, *labelled(1, last + 1)]).reason.startswith("decline, and at least 5 rows")


@pytest.mark.fault("a training fails")
def test_feedback_stays_new_until_a_training_has_learnt_it(store: Store) -> None:
    rows = labelled(5, NOW - 40 * HOUR)
    record_start(store, NOW - 30 * HOUR)  # and failed
    assert decide(store, rows=rows).train
    learn(store, NOW - 30 * HOUR)
    assert decide(store, rows=rows).reason == "decline, but only 0 rows with feedback are new: 5 are needed"
    record_start(store, NOW - 25 * HOUR)
    assert not decide(store, rows=rows).train  # what was learnt stays learnt


@pytest.mark.fault("no pictures are stored")
def test_feedback_without_stored_pictures_teaches_nothing_and_the_reason_says_the_remedy(store: Store) -> None:
    rows = [LoggedPrediction(logged(image_sha256=f"{i:064}"), labelled(1)[0].feedback) for i in range(349)]
    assert decide(store, rows=rows) == RetrainDecision(
        False,
        "decline, but only 0 rows with feedback are new: 5 are needed; 349 more are without a stored picture "
        "(serve.log.images=true stores them)",
    )


def test_feedback_that_is_not_believed_is_not_new(store: Store) -> None:
    answer = decide(store, rows=labelled(400), believed=Believed(Trust()))
    assert not answer.train
    assert "400 more are on unusual pictures, by sources that no review has proven (see /review)" in answer.reason


def test_changed_feedback_on_an_old_row_is_new(store: Store) -> None:
    learn(store, NOW - 30 * HOUR)
    assert decide(store, rows=labelled(5, NOW - 40 * HOUR, NOW - HOUR)).train


def test_feedback_on_test_rows_is_not_new(store: Store) -> None:
    answer = decide(store, rows=labelled(4) + labelled(100, source=TEST_ROWS))
    assert answer.reason.startswith("decline, but only 4 rows with feedback are new")


def test_the_latest_training_counts(store: Store) -> None:
    record_start(store, NOW - 100 * HOUR)
    record_start(store, NOW - HOUR)
    assert "the last training began 1.0 hours ago" in decide(store).reason


def test_another_process_sees_the_last_training(store: Store, tmp_path: Path) -> None:
    record_start(store, NOW - HOUR)
    assert not decide(open_store(str(tmp_path / "reports"))).train


def test_after_a_clock_was_set_back_there_is_no_wait_and_all_feedback_is_new(store: Store) -> None:
    record_start(store, NOW + 1000 * HOUR)
    assert decide(store) == RetrainDecision(True, "decline, and at least 5 rows with feedback are new")
    assert not decide(store, rows=labelled(4)).train


@pytest.mark.fault("damaged state of retraining")
@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b'{"began": 1', b"null", b"[]", b"{}", b'{"began": null}', b'{"began": "today"}']
)
def test_a_damaged_state_counts_as_no_training(damage: bytes, store: Store) -> None:
    store.put(state_of(retraining.STATE, MODEL_NAME), damage)
    assert decide(store).train
    assert not decide(store, rows=labelled(4)).train
    record_start(store, NOW)
    assert not decide(store).train


def test_an_unreadable_store_prevents_training(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'loop'} cannot be used"):
        decide(open_store(str(tmp_path / "loop")))


def test_a_training_that_cannot_be_recorded_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'file'} cannot be used"):
        record_start(open_store(str(tmp_path / "file")), NOW)


def test_a_training_and_feedback_of_one_model_do_not_count_for_another(store: Store) -> None:
    record_start(store, NOW - HOUR)
    more = {"model_name": "bags", "believed": PROVEN, "images": store, "clock": lambda: NOW}
    other = retraining.decide(["decline"], labelled(5), SETTINGS, store, **more)  # type: ignore[arg-type]
    assert "only 0 rows with feedback are new: 5 are needed; 5 more are on predictions of other models" in other.reason
    bags = [LoggedPrediction(dataclasses.replace(RECORD, model_name="bags"), row.feedback) for row in labelled(5)]
    assert retraining.decide(["decline"], bags, SETTINGS, store, **more).train  # type: ignore[arg-type]


def test_the_cooldown_that_an_older_version_stored_still_counts(store: Store) -> None:
    store.put(retraining.STATE, b'{"began": %d}' % (NOW - HOUR))
    assert "within the cooldown" in decide(store).reason
