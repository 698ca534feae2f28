"""Flows that are stopped and killed: their MLflow runs end, their tasks too, and nothing is logged twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import faults
from support.machine import FLOWS, ROWS, Machine

WORDS = [f"data.limit={ROWS}", "training.num_epochs=2", "tuning=off"]
ENDS_SECONDS = 300


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine for flows that are stopped, with a temporary folder of its own."""
    folder = tmp_path_factory.mktemp("stopped")
    machine = Machine(folder / "var")
    machine.environment["TMPDIR"] = str(folder)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    yield machine
    signal.signal(signal.SIGINT, before)


def start(machine: Machine, *arguments: str, **fault: str) -> subprocess.Popen[str]:
    """Start a flow in a process group of its own: a fault may interrupt it all."""
    return subprocess.Popen(
        [sys.executable, str(FLOWS / "train_flow.py"), *arguments],
        env={**machine.environment, **fault},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def latest(machine: Machine) -> Any:
    """The latest MLflow run."""
    client = machine.connect()
    experiments = [each.experiment_id for each in client.search_experiments()]
    return client.search_runs(experiments, order_by=["attributes.start_time DESC"])[0]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + ENDS_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.fault("Ctrl-C and SIGTERM")
@pytest.mark.parametrize("is_terminated", [False, True], ids=["Ctrl-C", "SIGTERM"])
def test_a_flow_that_is_stopped_ends_its_mlflow_run_at_once(
    is_terminated: bool, stopped: Machine, tmp_path: Path
) -> None:
    action: faults.Action = "wait" if is_terminated else "interrupt"
    fault = faults.at("fashion.registry.tracking:log_params", tmp_path, action=action, seconds=600)
    flow = start(stopped, "run", *WORDS, **fault)
    if is_terminated:
        until(lambda: (tmp_path / "done").exists() or flow.poll() is not None)
        os.kill(flow.pid, signal.SIGTERM)
    output, _ = flow.communicate(timeout=300)
    assert (tmp_path / "done").exists(), output
    assert flow.returncode != 0
    assert latest(stopped).info.status == "KILLED", output
    assert not list((stopped.root / "open-runs").iterdir())


@pytest.mark.slow
@pytest.mark.fault("Ctrl-C while a flow is imported")
def test_a_flow_that_is_interrupted_at_once_says_so_in_one_word(stopped: Machine, tmp_path: Path) -> None:
    fault = faults.at("fashion.home:set_environment", tmp_path, action="interrupt", when="after")
    flow = start(stopped, "run", *WORDS, **fault)
    output, _ = flow.communicate(timeout=300)
    assert (tmp_path / "done").exists(), output
    assert flow.returncode == -signal.SIGINT
    assert output.strip() == "Aborted!"


@pytest.mark.slow
@pytest.mark.fault("kill -9 of the scheduler")
def test_a_task_ends_with_its_scheduler_and_resuming_logs_each_epoch_once(stopped: Machine, tmp_path: Path) -> None:
    fault = faults.at("fashion.training.checkpoint:save", tmp_path, action="kill parent", when="after")
    flow = start(stopped, "run", *WORDS, **fault)
    output, _ = flow.communicate(timeout=300)
    assert flow.returncode == -signal.SIGKILL, output
    until(lambda: latest(stopped).info.status == "KILLED")  # by the task itself
    killed = latest(stopped).info
    left = list(Path(stopped.environment["TMPDIR"]).glob("fashion-*/*"))
    assert left

    resumed = start(stopped, "resume")
    output, _ = resumed.communicate(timeout=600)
    assert resumed.returncode == 0, output
    run = latest(stopped)
    assert (run.info.run_id, run.info.status) == (killed.run_id, "FINISHED")
    history = stopped.connect().get_metric_history(run.info.run_id, "val/accuracy")
    assert [metric.step for metric in history] == [1, 2]
    assert "continuing after epoch 1/2" in output
    assert not [path for path in left if path.exists()]  # temporary files of the run that was killed
