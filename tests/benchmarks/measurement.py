"""How benchmarks measure and print results. Independent of what is measured."""

import dataclasses
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.data.loading import load_dataset
from fashion.home import REPOSITORY, current_home

T = TypeVar("T")
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    quick: bool
    """Too little work for figures to mean anything: shows that a benchmark runs."""
    seeds: tuple[int, ...]
    """Trainings of `time_to_accuracy`, `leaderboard` and `imbalance`."""
    epochs: tuple[int, ...]
    """Budgets of `time_to_accuracy`."""
    python: str
    """Interpreter that runs the flow of `flow_overhead`."""


@dataclass(frozen=True)
class ServingOptions(Options):
    """Further options of the benchmarks of the service."""

    home: Path | None
    """Whose champion is served; none trains one for a minute: it is as fast as one that knows more."""
    minutes: float
    """Of `soak`."""
    shared_log: str = "firestore"
    """Of `soak`: `firestore` or `postgresql`."""
    measurements: Path | None = None
    """File in which `cost` leaves what docs/cost.md is made from."""


@dataclass(frozen=True)
class Seconds:
    """What some work took."""

    cpu: float
    """Of this process and of the children it waited for."""
    wall: float


@dataclass(frozen=True)
class Spread:
    """One figure, measured several times."""

    values: tuple[float, ...]

    def __format__(self, spec: str) -> str:
        middle, low, high = statistics.median(self.values), min(self.values), max(self.values)
        return f"{middle:{spec}} ({low:{spec}} to {high:{spec}})"


Cell = str | float | Spread | None


@dataclass(frozen=True)
class Table:
    """A result."""

    title: str
    rows: Sequence[Mapping[str, Cell]]
    """Each with the same keys, which head the columns."""
    note: str
    """How it was measured: what a reader needs before believing it."""
    formats: dict[str, str] = field(default_factory=dict)
    """Format specification of a column; without one, thousands are separated and decimals left out."""

    def markdown(self) -> str:
        """The table for people."""
        lines = [list(self.rows[0]), *([self._written(name, row[name]) for name in row] for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        first, *rest = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines)
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([f"### {self.title}", "", first, rule, *rest, "", self.note, ""])

    def plain(self) -> dict[str, Any]:
        """The table for JSON, every single measurement in it."""
        return dataclasses.asdict(self)

    def _written(self, column: str, cell: Cell) -> str:
        if cell is None:
            return ""
        return cell if isinstance(cell, str) else format(cell, self.formats.get(column, ",.0f"))


class Results:
    """Measurements in a file, each made once: what takes hours can be ended, and goes on where it was."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: of the file; None keeps them in memory alone.
        """
        self._path = path
        self._known: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.is_file() else {}

    def get(self, key: str, kind: type[Kind], make: Callable[[], Kind]) -> Kind:
        """The measurement of that name, a dataclass, which is made and stored if it is not known."""
        if key not in self._known:
            self._known[key] = dataclasses.asdict(make())  # type: ignore[call-overload]
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.write_text(json.dumps(self._known, indent=1) + "\n")
        return kind(**self._known[key])


def measured(work: Callable[[], object]) -> Seconds:
    """Time one call of `work`."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    work()
    return Seconds(cpu=cpu_seconds() - cpu, wall=time.perf_counter() - wall)


def cpu_seconds() -> float:
    """CPU-seconds so far of this process and of all children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def alternately(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Call every contender once a round, and backwards in every other round.

    What else the machine does, and how warm it is, changes by the minute: it then meets all of them alike.
    """
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else reversed(names):
            results[name].append(contenders[name]())
            say(f"round {number + 1} of {rounds}: {name}")
    return results


def say(message: str) -> None:
    """Show that something moves, where it does not get between the tables."""
    print(message, file=sys.stderr, flush=True)


def in_a_process(module: str, *words: str, rows: int, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """What a module prints of a log that it has read, as JSON in its last line; in a process, for its memory's sake.

    Args:
        module: run by its name.
        words: its arguments.
        rows: that it must have read.
        prefix: words before the interpreter's, such as `taskset`'s.

    Raises:
        RuntimeError: it failed, or read other rows.
    """
    command = [*prefix, sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["rows"] != rows:
        raise RuntimeError(f"{found['rows']} of {rows} rows were read")
    return found


def fashion_mnist(limit: int | None) -> Dataset:
    """The project's data, from its cache: `limit` rows of each split."""
    data = load_train_config(compose([] if limit is None else [f"data.limit={limit}"])).data
    return load_dataset(data, current_home().data)


def circumstances() -> dict[str, str]:
    """What figures depend on besides the code."""
    import psutil
    import torch

    from fashion.training.fit import supported_precision

    versions = {name: _version(name) for name in ("torch", "torchvision", "lightning-fabric", "lightning")}
    return {
        "CPU": f"{_cpu_model()}, {len(psutil.Process().cpu_affinity() or [])} of {psutil.cpu_count()} cores",
        "torch threads": str(torch.get_num_threads()),
        "bfloat16": "yes" if supported_precision("bf16-mixed") == "bf16-mixed" else "no: all in 32 bit",
        "load average": " ".join(f"{load:.1f}" for load in psutil.getloadavg()),
        "Python": platform.python_version(),
        **versions,
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def run_one(name: str) -> None:
    """Run one benchmark, as `python -m tests.benchmarks.NAME` does."""
    from tests.benchmarks.__main__ import main

    main([name, *sys.argv[1:]])
