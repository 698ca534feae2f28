"""A flow that is stopped or killed in each of its steps in turn, and resumed each time until it has finished.

Each step waits at one call until its signal has come. What a stopped flow leaves is looked at before it is resumed.
"""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
from support import faults
from support.machine import FLOWS, Machine

ENDS_SECONDS = 300
"""How long a step may take to be reached, and a flow to end."""
KINDS: dict[str, tuple[int, str]] = {
    "SIGINT to the group": (signal.SIGINT, "group"),  # Ctrl-C
    "SIGTERM to the task": (signal.SIGTERM, "task"),
    "SIGTERM to the scheduler": (signal.SIGTERM, "scheduler"),
    "SIGHUP to the group": (signal.SIGHUP, "group"),  # the terminal is closed
    "SIGKILL to the task": (signal.SIGKILL, "task"),
    "SIGKILL to the group": (signal.SIGKILL, "group"),
}
"""Name -> signal, and who gets it."""


@dataclass(frozen=True)
class Stop:
    """Where a step is stopped."""

    step: str
    function: str = "metaflow.task:MetaflowTask._exec_step_function"
    when: Literal["before", "after"] = "before"
    inside: str = ""
    """`flow_file/step`, where the step runs another flow, in whose step it is stopped."""
    retried: bool = True
    """Whether Metaflow starts a task of the step again that was killed."""
    tasks: int = 1
    """Of the step; one of them is stopped."""


@dataclass
class Swept:
    """What became of a flow.

    Attributes:
        rows: step, signal and what followed it, in order.
        output: of each process, in order.
    """

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    output: list[str] = field(default_factory=list)

    def finished(self, step: str) -> int:
        """How many tasks of a step have finished, over all processes; not those of a flow that a step runs."""
        said = rf"^\S+ \S+ \[\d+/{step}/\d+ \(pid \d+\)\] Task finished successfully"
        return len(re.findall(said, "\n".join(self.output), re.MULTILINE))


def sweep(machine: Machine, flow: str, words: Sequence[str], stops: Sequence[Stop], *, shift: int) -> Swept:
    """Run a flow, stop it in each step, and resume it until it has finished.

    Args:
        machine: whose TMPDIR is its own.
        flow: name of its file, without `.py`.
        words: of its command line, after `run`.
        stops: of its steps, in the order that they run in.
        shift: which signal the first step gets; those after it get the next ones.
    """
    folder = Path(machine.environment["TMPDIR"]).parent / flow
    points = []
    for stop in stops:
        (folder / stop.step).mkdir(parents=True)
        inside = stop.inside or f"{flow}/{stop.step}"
        wait = 2 * ENDS_SECONDS
        points.append(
            faults.at(stop.function, folder / stop.step, action="wait", when=stop.when, seconds=wait, task=inside)
        )
    environment = {**machine.environment, **faults.together(points)}
    kinds = list(KINDS)
    waiting = [(stop, kinds[(number + shift) % len(kinds)]) for number, stop in enumerate(stops)]
    swept, command = Swept(), ["run", *words]
    while True:
        code, stopped = _run(flow, command, environment, waiting, folder)
        swept.output.append((folder / "output").read_text())
        for stop, kind in stopped:
            ends = code != 0 and stop is stopped[-1][0]
            swept.rows.append((stop.step, kind, f"ends with {code}" if ends else "is retried"))
            assert ends is not (stop.retried and kind.endswith("the task")), (swept.rows[-1], swept.output[-1])
        print(f"{flow}: {stopped and swept.rows[-len(stopped) :]}", flush=True)
        if code == 0:
            return swept
        assert stopped, swept.output[-1]
        _look(machine, swept.output[-1], was_killed=stopped[-1][1] == "SIGKILL to the group")
        command = ["resume"]


def _run(
    flow: str, command: list[str], environment: dict[str, str], waiting: list[tuple[Stop, str]], folder: Path
) -> tuple[int, list[tuple[Stop, str]]]:
    """Run one process of a flow, which is stopped where it waits; return its exit code, and where it was stopped."""
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(FLOWS / f"{flow}.py"), *command],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    stopped: list[tuple[Stop, str]] = []
    deadline = time.monotonic() + ENDS_SECONDS
    while process.poll() is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"neither stopped nor over: {(folder / 'output').read_text()}")
        if waiting and (folder / waiting[0][0].step / "done").exists():
            stop, kind = waiting.pop(0)
            _send(process.pid, stop.step, kind)
            stopped.append((stop, kind))
            deadline = time.monotonic() + ENDS_SECONDS
        time.sleep(0.1)
    return process.returncode, stopped


def _send(scheduler: int, step: str, kind: str) -> None:
    number, target = KINDS[kind]
    if target == "group":
        os.killpg(scheduler, number)
        return
    pid = scheduler if target == "scheduler" else _task(scheduler, step)
    os.kill(pid, number)


def _task(scheduler: int, step: str) -> int:
    """The process of a step's task."""
    for child in psutil.Process(scheduler).children():
        with contextlib.suppress(psutil.Error):
            words = child.cmdline()
            if ("step", step) in itertools.pairwise(words):
                return int(child.pid)
    raise AssertionError(f"no task of {step}")


def processes(machine: Machine) -> list[str]:
    """Command lines of the processes that run on a machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("FASHION_HOME") == str(machine.root) and process.status() != "zombie":
                found.append(" ".join(process.cmdline()))
    return found


def open_runs(machine: Machine) -> list[Any]:
    """MLflow runs that are open."""
    client = machine.connect()
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_runs(experiments, "attributes.status = 'RUNNING'"))


def _look(machine: Machine, said: str, *, was_killed: bool) -> None:
    """Check what a flow that ended leaves: nothing open, or after a kill nothing that outlives the next command."""
    assert "Traceback" not in said, said
    deadline = time.monotonic() + ENDS_SECONDS  # a task ends with its scheduler, once it has looked after it
    while (running := processes(machine)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not running, (running, said)
    assert was_killed or not open_runs(machine), said
    done = machine.python("-m", "fashion", "registry", "list")
    assert "Traceback" not in done.stderr, done.stderr
    assert not open_runs(machine), said
    left = [path for path in Path(machine.environment["TMPDIR"]).rglob("*") if not path.is_dir()]
    assert not left, (left, said)
    assert not list((machine.root / "open-runs").glob("*")), said
