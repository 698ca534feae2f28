"""CPU-seconds of a whole TrainFlow run beside its training, step by step: imports, cards, logging, evaluation."""

import contextlib
import itertools
import os
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.home import REPOSITORY, current_home
from tests.benchmarks.measurement import Cell, Options, Table, fashion_mnist, run_one, say

LOOK_SECONDS = 0.05
"""Processes are looked at this often; what they use after the last look is in the sum only."""
LAUNCHER = "launcher"
STEPS = ("start", "plan", "tune", "collect", "train", "evaluate", "register", "end")


@dataclass
class Watched:
    """CPU-seconds of a run."""

    total: float = 0.0
    """Of all processes, from the kernel's own account."""
    tasks: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Of a step's own processes."""
    started: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Of the processes that a task starts: its cards, mostly."""
    num_tasks: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def tables(options: Options) -> Iterator[Table]:
    """Run the flow as a user would, on all data, in a home of its own."""
    overrides = ["tuning.num_epochs=1"]  # after a single epoch no trial is pruned: pruned ones do not report their cost
    overrides += ["data.limit=1000", "training.num_epochs=1", "tuning.num_trials=2"] if options.quick else []
    settings = load_train_config(compose(overrides))
    fashion_mnist(None)  # fetched, so that the run finds it
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "data").symlink_to(current_home().data, target_is_directory=True)
        watched = _run(overrides, home, options.python)
        training = {"tune": _of_trials(home), "train": _of_training(settings)}
    yield _table(watched, training, settings, overrides)


def _run(overrides: list[str], home: Path, python: str) -> Watched:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("FASHION_", "METAFLOW_", "MLFLOW_"))
    }
    command = [python, str(REPOSITORY / "flows" / "train_flow.py"), "run", *overrides]
    log = home / "log"
    say(" ".join(command))
    with log.open("w") as file:
        process = subprocess.Popen(
            command,
            env={**environment, "FASHION_HOME": str(home)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        watched = _watch(process)
    if process.returncode:
        raise SystemExit(f"error: the flow failed:\n{log.read_text()[-5000:]}")
    return watched


def _watch(launched: "subprocess.Popen[bytes]") -> Watched:
    """Look at a run's processes until it ends."""
    seconds: dict[int, float] = {}
    steps: dict[int, tuple[str, bool]] = {launched.pid: (LAUNCHER, True)}
    launcher = psutil.Process(launched.pid)
    while True:
        # Waited for by hand: the kernel then gives the sum over all processes that have ended.
        ended, status, usage = os.wait4(launched.pid, os.WNOHANG)
        if ended:
            break
        with contextlib.suppress(psutil.Error):
            seconds[launched.pid] = _own_seconds(launcher)
        for process in _descendants(launcher):
            with contextlib.suppress(psutil.Error):
                seconds[process.pid] = _own_seconds(process)
                # One that is just ending has no command line left; it keeps the step it had.
                if arguments := process.cmdline():
                    steps[process.pid] = _step(arguments, process.ppid(), launched.pid, steps)
        time.sleep(LOOK_SECONDS)
    launched.returncode = os.waitstatus_to_exitcode(status)
    watched = Watched(total=usage.ru_utime + usage.ru_stime)
    for pid, (step, is_task) in steps.items():
        (watched.tasks if is_task else watched.started)[step] += seconds.get(pid, 0.0)
        watched.num_tasks[step] += is_task
    return watched


def _own_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _descendants(launcher: psutil.Process) -> list[psutil.Process]:
    try:
        return list(launcher.children(recursive=True))
    except psutil.Error:
        return []


def _step(arguments: list[str], parent: int, launcher: int, steps: dict[int, tuple[str, bool]]) -> tuple[str, bool]:
    """The step that a process belongs to, and whether it is the task itself; determined anew at each look.

    Between fork and exec a process has its parent's command line.
    """
    if parent != launcher:
        return steps.get(parent, (LAUNCHER, False))[0], False
    # `train_flow.py [options] step NAME`
    name = next((name for word, name in itertools.pairwise(arguments) if word == "step"), None)
    return (name, True) if name in STEPS else (LAUNCHER, False)


def _of_trials(home: Path) -> float:
    from fashion.training import tuning

    (journal,) = (home / "optuna").glob("*.log")
    trials = tuning.trials(str(home / "optuna"), journal.stem)
    return float(sum(trial.user_attrs["cpu_seconds"] for trial in trials))


def _of_training(settings: TrainConfig) -> float:
    """The same training without the flow: in a run, logging and pictures between epochs are on `fit`'s clock too."""
    from fashion.training.recipe import train

    _, fitted = train(settings, fashion_mnist(settings.data.limit))
    return fitted.history[-1].cpu_seconds


def _table(watched: Watched, training: dict[str, float], settings: TrainConfig, overrides: list[str]) -> Table:
    rows: list[dict[str, Cell]] = []
    for step in (LAUNCHER, *STEPS):
        spent = watched.tasks[step] + watched.started[step]
        rows.append(
            {
                "step": step,
                "tasks": watched.num_tasks[step],
                "CPU-seconds": spent,
                "of it cards": watched.started[step],
                "of it training": training.get(step, 0.0),
                "overhead": spent - training.get(step, 0.0),
            }
        )
    unseen = watched.total - sum(watched.tasks.values()) - sum(watched.started.values())
    rows.append(dict.fromkeys(rows[0], None) | {"step": "between two looks", "CPU-seconds": unseen, "overhead": unseen})
    rows.append(
        {
            "step": "sum",
            "tasks": sum(watched.num_tasks[step] for step in STEPS),
            "CPU-seconds": watched.total,
            "of it cards": sum(watched.started.values()),
            "of it training": sum(training.values()),
            "overhead": watched.total - sum(training.values()),
        }
    )
    seconds = ("CPU-seconds", "of it cards", "of it training", "overhead")
    return Table(
        "Overhead of the flow",
        rows,
        f"One run of `train_flow.py run {' '.join(overrides)}` in an empty home: {settings.tuning.num_trials} trials "
        f"of {settings.tuning.num_epochs} epoch by {settings.tuning.num_workers} workers, then "
        f"{settings.training.num_epochs} epochs. Training is what `fit` alone takes, as the trials report "
        "it and from the same training without a flow. Aim: an overhead of at most 60 CPU-seconds.",
        dict.fromkeys(seconds, ".1f"),
    )


if __name__ == "__main__":
    run_one("flow_overhead")
