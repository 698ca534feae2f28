"""Metrics of a training while MLflow's server is away: nothing stops, nothing is lost, nothing is twice."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fashion.home import Home
from fashion.registry import sender, tracking
from fashion.registry.sender import Record, Sender
from fashion.storage.folder import FolderStore
from fashion.storage.servers import ServerUnavailable

pytestmark = pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)
KEY = "val/accuracy"
SLOW_SECONDS = 0.4


@pytest.fixture
def run_id(mlflow_home: Home) -> str:
    return tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "tests"), "run", {})


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Iterator[contextlib.ExitStack]:
    """MLflow's server is away until this is closed; some of what was sent before that had been stored."""
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.05)
    original = tracking.log_metrics

    def fail(*arguments: object, **named: object) -> None:
        original(*arguments, **named)  # type: ignore[arg-type]  # stored, and the answer is lost
        patch.setattr(sender, "logged_steps", refuse)
        refuse()

    def refuse(*_: object) -> None:
        raise ServerUnavailable("MLflow at http://here cannot be reached")

    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(tracking, "log_metrics", fail)
        yield stack


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow takes SLOW_SECONDS to store an epoch."""
    original = tracking.log_metrics

    def wait(*arguments: object, **named: object) -> None:
        time.sleep(SLOW_SECONDS)
        original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(tracking, "log_metrics", wait)


def steps(run_id: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in MlflowClient().get_metric_history(run_id, KEY)]


def until(condition: "list[str]") -> None:
    deadline = time.monotonic() + 30
    while not condition:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.fault("MLflow's server goes away for some epochs")
def test_a_server_that_comes_back_gets_each_epoch_once(run_id: str, away: contextlib.ExitStack) -> None:
    said: list[str] = []
    sending = Sender(run_id, key=KEY, report=said.append)
    for step in (1, 2, 3):
        sending.put(Record(step, {KEY: step / 10}))
    until(said)
    away.close()
    assert sending.close(30) == []
    assert steps(run_id) == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert said == [
        "MLflow at http://here cannot be reached; training goes on, and its metrics wait for the server",
        "MLflow is back: the metrics that waited are sent",
    ]


@pytest.mark.fault("MLflow's server stays away until a training has ended")
def test_epochs_that_no_server_took_are_kept_and_sent_by_the_next_step(
    run_id: str, away: contextlib.ExitStack, tmp_path: Path
) -> None:
    sending = Sender(run_id, key=KEY, report=lambda _: None)
    for step in range(1, sender.MAX_PICTURES + 3):
        sending.put(Record(step, {KEY: step / 100}, {"saliency": b"png"}))
    started = time.monotonic()
    unsent = sending.close(1.0)
    assert time.monotonic() - started < 5
    assert [record.step for record in unsent] == list(range(1, sender.MAX_PICTURES + 3))
    assert [bool(record.pictures) for record in unsent] == [False] * 2 + [True] * sender.MAX_PICTURES

    store = FolderStore(tmp_path)
    sender.keep(store, [Record(record.step, record.metrics, time_ms=record.time_ms) for record in unsent], key=KEY)
    away.close()
    assert sender.send_kept(store, run_id) == len(unsent)
    assert sender.send_kept(store, run_id) == 0
    assert [step for step, _ in steps(run_id)] == [record.step for record in unsent]
    assert {metric.timestamp for metric in MlflowClient().get_metric_history(run_id, KEY)} <= {
        record.time_ms for record in unsent
    }


@pytest.mark.fault("MLflow's server takes longer for an epoch than the training")
@pytest.mark.usefixtures("slow")
def test_a_slow_server_holds_nothing_up_and_gets_each_epoch(run_id: str) -> None:
    said: list[str] = []
    sending = Sender(run_id, key=KEY, report=said.append)
    started = time.monotonic()
    for step in range(1, 7):
        sending.put(Record(step, {KEY: step / 10}))
    assert time.monotonic() - started < SLOW_SECONDS
    assert sending.close(30) == []
    assert time.monotonic() - started > 6 * SLOW_SECONDS
    assert steps(run_id) == [(step, step / 10) for step in range(1, 7)]
    assert said == []


@pytest.mark.fault("MLflow's server is too slow for the end of a training")
@pytest.mark.usefixtures("slow")
def test_epochs_that_a_slow_server_has_not_taken_in_time_are_sent_by_the_next_step(run_id: str, tmp_path: Path) -> None:
    sending = Sender(run_id, key=KEY, report=lambda _: None)
    for step in range(1, 7):
        sending.put(Record(step, {KEY: step / 10}))
    unsent = sending.close(2.5 * SLOW_SECONDS)
    assert 0 < len(unsent) < 6
    store = FolderStore(tmp_path)
    sender.keep(store, unsent, key=KEY)
    assert sender.send_kept(store, run_id) == len(unsent)
    assert sorted(steps(run_id)) == [(step, step / 10) for step in range(1, 7)]  # none twice


def test_what_is_wrong_with_the_store_itself_ends_the_training(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracking, "log_metrics", fail)
    sending = Sender(run_id, key=KEY, report=lambda _: None)
    sending.put(Record(1, {KEY: 0.1}))
    with pytest.raises(OSError, match="No space left"):
        sending.close(30)
