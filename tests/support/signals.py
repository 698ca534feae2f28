"""A flow that is stopped or killed in each of its steps in turn, and resumed each time until it has finished.

Each step waits at one call until its signal has come. What a stopped flow leaves is looked at before it is resumed.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from support import faults
from support.machine import FLOWS, Machine

ENDS_SECONDS = 500
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
    when: Any = "before"
    inside: str = ""
    """`flow_file/step`, where the step runs another flow, in whose step it is stopped."""


@dataclass
class Swept:
    """What became of a flow.

    Attributes:
        rows: step, signal and what followed it, in order.
        output: of each process, in order.
        opened: how many MLflow runs were open when a process had ended; after each of them.
    """

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    output: list[str] = field(default_factory=list)
    opened: list[int] = field(default_factory=list)


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
        arguments = {"action": "wait", "when": stop.when, "seconds": 2 * ENDS_SECONDS, "task": inside}
        points.append(faults.at(stop.function, folder / stop.step, **arguments))
    environment = {**machine.environment, **faults.together(points)}
    kinds = list(KINDS)
    waiting = [(stop, kinds[(number + shift) % len(kinds)]) for number, stop in enumerate(stops)]
    swept, command = Swept(), ["run", *words]
    while True:
        code, stopped = _run(flow, command, environment, waiting, folder, swept)
        ending = "goes on" if code == 0 else f"ends with {code}"
        swept.rows += [
            (stop.step, kind, ending if number == len(stopped) - 1 else "goes on")
            for number, (stop, kind) in enumerate(stopped)
        ]
        if code == 0:
            return swept
        assert stopped, swept.output[-1]
        _look(machine, swept, was_killed=stopped[-1][1] == "SIGKILL to the group")
        command = ["resume"]


def _run(
    flow: str, command: list[str], environment: dict[str, str], waiting: list[Any], folder: Path, swept: Swept
) -> tuple[int, list[tuple[Stop, str]]]:
    """One process of a flow, stopped where it waits; its exit code, and where it was stopped."""
    with (folder / "output").open("w+") as output:
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
            assert time.monotonic() < deadline, Path(output.name).read_text()
            if waiting and (folder / waiting[0][0].step / "done").exists():
                stop, kind = waiting.pop(0)
                _send(process.pid, stop.step, kind)
                stopped.append((stop, kind))
                deadline = time.monotonic() + ENDS_SECONDS
            time.sleep(0.1)
        swept.output.append(Path(output.name).read_text())
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


def _look(machine: Machine, swept: Swept, *, was_killed: bool) -> None:
    """Check what a flow that ended leaves: nothing at once, or after a kill nothing that outlives the next command."""
    said = swept.output[-1]
    assert "Traceback" not in said, said
    deadline = time.monotonic() + 20  # a task looks after its scheduler each half second
    while (running := processes(machine)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not running, (running, said)
    swept.opened.append(len(open_runs(machine)))
    if not was_killed:
        assert swept.opened[-1] == 0, said
    done = machine.python("-m", "fashion", "registry", "list")
    assert done.returncode in (0, 1), done.stderr
    assert not open_runs(machine), said
    left = [path for path in Path(machine.environment["TMPDIR"]).rglob("*") if path.is_file()]
    assert not left, (left, said)
    assert not list((machine.root / "open-runs").glob("*")), said
