"""When a training is due: what was found asks for it, enough is new, and the last one was long enough ago."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.log_rows import record as logged

from fashion.config.drift import RetrainConfig
from fashion.drift import retraining
from fashion.drift.retraining import RetrainDecision
from fashion.predictions.labelled import TEST_ROWS
from fashion.predictions.record import Feedback, LoggedPrediction
from fashion.storage.address import open_store
from fashion.storage.blobs import Store, StoreUnavailable

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


def judged(count: int, *times: float, source: str = "page") -> list[LoggedPrediction]:
    """So many rows, with feedback given at these times, in seconds since 1970; by default a minute ago."""
    record = logged()
    said = [Feedback(record.prediction_id, 1, source, int(each * 1e6)) for each in times or (NOW - 60,)]
    return [LoggedPrediction(record, tuple(said))] * count


def ask(
    store: Store,
    conditions: Sequence[str] = ("decline",),
    rows: Sequence[LoggedPrediction] | None = None,
    *,
    settings: RetrainConfig = SETTINGS,
    now: float = NOW,
) -> RetrainDecision:
    """By default, all that a training needs is there."""
    return retraining.decide(conditions, judged(5) if rows is None else rows, settings, store, clock=lambda: now)


def remember(store: Store, when: float) -> None:
    retraining.record_start(store, clock=lambda: when)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "reports"))


def test_a_training_is_due_where_something_was_found_and_enough_is_new(store: Store) -> None:
    assert ask(store) == RetrainDecision(True, "decline, and 5 rows with feedback are new")


def test_retraining_that_is_off_says_how_to_turn_it_on(store: Store) -> None:
    settings = dataclasses.replace(SETTINGS, enabled=False)
    assert ask(store, settings=settings) == RetrainDecision(
        False, "retraining is off: retrain.enabled=true turns it on"
    )


@pytest.mark.parametrize("conditions", [[], ["drift"], ["drift", "problem"]])
def test_nothing_is_trained_where_nothing_that_asks_for_it_was_found(conditions: list[str], store: Store) -> None:
    assert ask(store, conditions) == RetrainDecision(False, "no condition for it holds (harmful, decline)")


def test_all_that_asks_for_a_training_is_named_and_nothing_else(store: Store) -> None:
    answer = ask(store, ["harmful", "drift", "decline"])
    assert answer == RetrainDecision(True, "decline, harmful, and 5 rows with feedback are new")


@pytest.mark.parametrize(("hours", "is_due"), [(0, False), (1, False), (23.9, False), (24, True), (1000, True)])
def test_between_two_trainings_is_a_cooldown(hours: float, is_due: bool, store: Store) -> None:
    remember(store, NOW - hours * HOUR)
    answer = ask(store, rows=judged(5, NOW + 1))
    assert answer.train is is_due
    said = f"decline, but the last training began {hours:.1f} hours ago, within the cooldown of 24"
    assert (answer.reason == said) is not is_due


def test_without_a_cooldown_news_alone_are_asked_for(store: Store) -> None:
    settings = dataclasses.replace(SETTINGS, cooldown_hours=0)
    remember(store, NOW)
    assert not ask(store, settings=settings).train
    assert ask(store, rows=judged(5, NOW + 1), settings=settings).train


def test_too_few_rows_with_feedback_are_named(store: Store) -> None:
    assert ask(store, rows=judged(4)) == RetrainDecision(
        False, "decline, but only 4 rows with feedback are new: 5 are needed"
    )


def test_what_the_last_training_knew_is_not_new(store: Store) -> None:
    last = NOW - 30 * HOUR
    remember(store, last)
    rows = judged(2, last - 1) + judged(3, last) + judged(4, last + 1)
    assert ask(store, rows=rows).reason.startswith("decline, but only 4 rows with feedback are new")
    assert ask(store, rows=[*rows, *judged(1, last + 1)]).reason.startswith("decline, and 5 rows")


def test_an_old_row_that_is_judged_anew_is_new(store: Store) -> None:
    remember(store, NOW - 30 * HOUR)
    assert ask(store, rows=judged(5, NOW - 40 * HOUR, NOW - HOUR)).train


def test_changed_test_rows_are_no_news(store: Store) -> None:
    answer = ask(store, rows=judged(4) + judged(100, source=TEST_ROWS))
    assert answer.reason.startswith("decline, but only 4 rows with feedback are new")


def test_the_latest_training_is_remembered(store: Store) -> None:
    remember(store, NOW - 100 * HOUR)
    remember(store, NOW - HOUR)
    assert "the last training began 1.0 hours ago" in ask(store).reason


def test_a_training_is_remembered_where_another_process_looks(store: Store, tmp_path: Path) -> None:
    remember(store, NOW - HOUR)
    assert not ask(open_store(str(tmp_path / "reports"))).train


def test_a_clock_that_was_set_back_neither_waits_nor_calls_anything_old(store: Store) -> None:
    remember(store, NOW + 1000 * HOUR)
    assert ask(store) == RetrainDecision(True, "decline, and 5 rows with feedback are new")
    assert not ask(store, rows=judged(4)).train


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b'{"began": 1', b"null", b"[]", b"{}", b'{"began": null}', b'{"began": "today"}']
)
def test_a_damaged_state_is_as_none_until_the_next_training(damage: bytes, store: Store) -> None:
    store.put(retraining.STATE, damage)
    assert ask(store).train
    assert not ask(store, rows=judged(4)).train
    remember(store, NOW)
    assert not ask(store).train


def test_a_store_that_cannot_be_read_is_no_leave_to_train(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'loop'} cannot be used"):
        ask(open_store(str(tmp_path / "loop")))


def test_a_training_that_cannot_be_remembered_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match=f"{tmp_path / 'file'} cannot be used"):
        remember(open_store(str(tmp_path / "file")), NOW)
