"""Each flow, stopped or killed in each of its steps and resumed: it ends once, and leaves nothing open.

Each step gets one signal; with FASHION_TEST_SIGNALS=all each step gets every one, in as many runs.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import signals
from support.machine import Machine
from support.signals import Stop

SHIFTS = range(len(signals.KINDS)) if os.environ.get("FASHION_TEST_SIGNALS") == "all" else range(1)
WORDS = ["data.limit=1000", "training.num_epochs=1"]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with a temporary folder of its own, whose flows Ctrl-C reaches."""
    machine = Machine(tmp_path / "var")
    (tmp_path / "tmp").mkdir()
    machine.environment["TMPDIR"] = str(tmp_path / "tmp")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    yield machine
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("shift", SHIFTS)
def test_train(machine: Machine, shift: int) -> None:
    stops = [
        Stop("start", "fashion.registry.tracking:log_dataset"),
        Stop("plan", "fashion.training.tuning:create_study", "after"),
        Stop("tune", "fashion.training.objective:Objective.__call__"),
        Stop("collect", "fashion.registry.tracking:log_trials", "after"),
        Stop("train", "fashion.training.checkpoint:save", "after"),
        Stop("evaluate", "fashion.registry.versions:log_package", "after"),
        Stop("register", "fashion.registry.versions:register", "after"),
        Stop("end"),
    ]
    words = [*WORDS, "tuning.num_trials=1", "tuning.num_workers=1", "tuning.num_epochs=1"]
    swept = signals.sweep(machine, "train_flow", words, stops, shift=shift)
    Path("/tmp/sig/out").mkdir(exist_ok=True)
    for i, o in enumerate(swept.output):
        Path(f"/tmp/sig/out/train-{shift}-{i}").write_text(o)
    print(*swept.rows, sep="\n")
    print(swept.opened)
    assert 0
