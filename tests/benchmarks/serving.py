"""Requests a second of the served bento beside FastAPI on torch and on ONNX Runtime, around the same model package."""

import contextlib
import dataclasses
import http.client
import itertools
import json
import multiprocessing
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import psutil

from fashion.home import REPOSITORY, current_home
from fashion.model import package
from tests.benchmarks import load
from tests.benchmarks.baselines import LOG_VARIABLE, PACKAGE_VARIABLE
from tests.benchmarks.load import HOST, LOST, Answer, Load
from tests.benchmarks.measurement import Cell, Options, Spread, Table, alternately, fashion_mnist, run_one, say

PROJECT = "this service: BentoML, ONNX Runtime, prediction log"
SHADOWED = "this service, with a shadow that scores all again"
TORCH = "FastAPI, torch eager"
ONNX = "FastAPI, ONNX Runtime, no log"
ONE_ROW = "no framework, ONNX Runtime, one row committed"
NOTHING = "an endpoint that does nothing"

CONNECTIONS = (1, 8, 64)
NUM_PICTURES = 500
CLEAR_MARGIN = 0.001
"""Pictures whose two likeliest classes are nearer have no right answer: torch and ONNX Runtime round differently."""
START_SECONDS = 60.0
END_SECONDS = 40.0
LOOK_SECONDS = 0.01

FASTER_THAN_TORCH = 2.0
AS_FAST_AS_ONNX = 0.9
AS_FAST_AS_ONE_ROW = 0.95
P95_MS = 70.0
READY_SECONDS = 4.0
MEMORY_MB = 250.0

Requests = list[tuple[int, bytes]]


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


class ServerFailed(RuntimeError):
    """A server that did not start, broke down, or did not end as it should."""


class Served:
    """A server on 127.0.0.1 while the `with` lasts, in a session of its own.

    Raises:
        ServerFailed: it ends before it is ready, its worker died meanwhile, or it leaves processes or an exit code
            that a server does not have when it is stopped.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: int,
        log: Path,
        *,
        workers_may_end: bool = False,
    ) -> None:
        self.port = port
        self._workers_may_end = workers_may_end
        self.ready_seconds = 0.0
        """From the start of the process to the first 200 of /readyz."""
        self._command, self._environment, self._log = command, environment, log
        self._started: list[psutil.Process] = []

    def __enter__(self) -> Self:
        started = time.perf_counter()
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._log.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while not self._is_ready():
                if self._process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    raise self._failed(f"was not ready after {time.perf_counter() - started:.0f} s")
                time.sleep(LOOK_SECONDS)
            self.ready_seconds = time.perf_counter() - started
            self._started = self.processes()
            self.worker = max(self._started, key=lambda each: each.memory_info().rss)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        survived = self.worker.is_running() and self.worker.status() != psutil.STATUS_ZOMBIE
        code, leftover = self._end()
        if kind is not None:  # what went wrong first is the news
            return
        if not survived and not self._workers_may_end:
            raise self._failed("lost its worker under load")
        # uvicorn ends by the signal it received, once it has closed everything.
        if code not in (0, -signal.SIGTERM) or leftover:
            raise self._failed(f"ended with {code} and left {leftover} processes")

    def processes(self) -> list[psutil.Process]:
        """The first process and all that it started."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def megabytes(self) -> tuple[float, float, float]:
        """Resident memory of the worker, its proportional share (PSS), and resident memory of all processes."""
        full = self.worker.memory_full_info()
        everything = sum(process.memory_info().rss for process in self.processes())
        return full.rss / 1e6, getattr(full, "pss", 0) / 1e6, everything / 1e6

    def proportional_megabytes(self) -> float:
        """Memory of all processes, what they share counted once (PSS)."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                total += getattr(process.memory_full_info(), "pss", 0) / 1e6
        return total

    def cpu_seconds(self) -> float:
        """CPU time so far of all processes."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(each.user + each.system for each in times))

    def libraries(self) -> str:
        """Which event loop and which HTTP parser the worker has loaded."""
        loaded = " ".join(region.path for region in self.worker.memory_maps())
        return ", ".join(name if name in loaded else f"no {name}" for name in ("uvloop", "httptools"))

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _end(self) -> tuple[int | None, int]:
        """End everything that was started: exit code of the first process, and how many outlived it."""
        started = set(self._started)
        with contextlib.suppress(psutil.Error):
            started.update(self.processes())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        # BentoML puts each worker into a session of its own: a signal to the group does not reach them.
        _, alive = psutil.wait_procs(started, timeout=2)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return self._process.wait(), len(alive)

    def _failed(self, what: str) -> ServerFailed:
        return ServerFailed(f"{' '.join(self._command)} {what}:\n{self._log.read_text(errors='replace')[-4000:]}")


@dataclass(frozen=True)
class Deployed:
    """A bento and where it keeps its state."""

    folder: Path
    bento: Path
    package: Path
    """The model package inside BentoML's store: what the service loads."""

    def serve(self, *prefix: str, **variables: str) -> Served:
        """The bento as `bentoml serve` runs it, with nothing set but `variables`; after the words of a prefix."""
        port = free_port()
        command = [
            *prefix,
            sys.executable,
            "-m",
            "bentoml",
            "serve",
            str(self.bento),
            "--host",
            HOST,
            "--port",
            str(port),
        ]
        return Served(command, environment(self.folder) | variables, port, self.folder / "bento.log")

    def follow(self, **variables: str) -> Served:
        """The latest bento as `make serve` runs it, with nothing set but `variables`."""
        port = free_port()
        command = [sys.executable, "-m", "fashion", "serve", "--follow", "--port", str(port)]
        settings = environment(self.folder) | {"PYTHONPATH": str(REPOSITORY)} | variables
        return Served(command, settings, port, self.folder / "serve.log", workers_may_end=True)

    def logged(self) -> set[str]:
        """Ids of all predictions in the log."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'predictions.db'}?mode=ro", uri=True)) as log:
            return {row[0] for row in log.execute("SELECT prediction_id FROM predictions WHERE role = 'champion'")}

    def feedback(self) -> Counter[str]:
        """How often there is feedback, by prediction."""
        with contextlib.closing(sqlite3.connect(f"file:{self.folder / 'predictions.db'}?mode=ro", uri=True)) as log:
            return Counter(row[0] for row in log.execute("SELECT prediction_id FROM feedback"))


@dataclass(frozen=True)
class Round:
    """One load of one server."""

    per_second: float
    p50: float
    """Milliseconds, as the other two."""
    p95: float
    p99: float
    generator: float
    """Share of a core that asking took."""
    cpu_us: float = 0.0
    """CPU microseconds of all the server's processes for a request: on a busy machine it varies less than the rate."""


@dataclass
class Contender:
    """A server and what was found of it."""

    serve: Callable[[], Served]
    rounds: dict[int, list[Round]] = field(default_factory=lambda: {each: [] for each in CONNECTIONS})
    errors: dict[int, Counter[str]] = field(default_factory=lambda: {each: Counter() for each in CONNECTIONS})
    ready: list[float] = field(default_factory=list)
    megabytes: list[tuple[float, float, float]] = field(default_factory=list)
    libraries: str = ""


def tables(options: ServingOptions) -> Iterator[Table]:
    """Serve one package in each way, in turn.

    Raises:
        SystemExit: an answer was wrong or missing, or a prediction that was acknowledged is not in the log.
    """
    with tempfile.TemporaryDirectory() as folder:
        deployed = deploy(Path(folder), options)
        shadowed = with_shadow(deployed, options)
        contenders = {PROJECT: Contender(deployed.serve), SHADOWED: Contender(shadowed.serve)} | baselines(deployed)
        acknowledged = compare(contenders, deployed.package, options)
        lost = acknowledged - deployed.logged()
    rounds = len(contenders[PROJECT].ready)
    yield _speed(contenders, rounds)
    yield _footprint(contenders)
    yield _targets(contenders, len(acknowledged), len(lost))
    errors = {name: total for name, each in contenders.items() if (total := sum(each.errors.values(), Counter()))}
    if errors or lost:
        raise SystemExit(f"error: {len(lost)} acknowledged predictions are not in the log; wrong answers: {errors}")


def deploy(folder: Path, options: ServingOptions, overrides: Sequence[str] = ()) -> Deployed:
    """Build a bento in a home of its own, of a model that is there or that is trained for it.

    Args:
        folder: the home.
        options: of the benchmark.
        overrides: of the bento.
    """
    fashion_mnist(None)  # fetched, so that the flows find it
    (folder / "data").symlink_to(current_home().data, target_is_directory=True)
    if options.home is None:
        training = ["tuning=off", f"data.limit={1000 if options.quick else 5000}", "training.num_epochs=1"]
        run_flow("train_flow", training, folder, options)
    (bento,) = _built(overrides, folder, options)
    used = next(
        file.parent for file in (folder / "bentoml").rglob(package.MANIFEST) if (file.parent / package.MODEL).exists()
    )
    return Deployed(folder, bento, used)


def another(deployed: Deployed, overrides: list[str], options: ServingOptions) -> Deployed:
    """Another bento of the same model, beside the first one; it is the latest."""
    (bento,) = _built(overrides, deployed.folder, options)
    return dataclasses.replace(deployed, bento=bento)


def with_shadow(deployed: Deployed, options: ServingOptions) -> Deployed:
    """The same bento and state, with the model's twin as its shadow."""
    return another(deployed, ["serve.shadow=champion"], options)


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process whose state lies in `folder`."""
    prefixes = ("FASHION_", "METAFLOW_", "MLFLOW_", "BENTOML_", "OTEL_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return inherited | {
        "FASHION_HOME": str(folder),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


def baselines(deployed: Deployed) -> dict[str, Contender]:
    """The other ways to serve the package."""
    settings = environment(deployed.folder) | {
        PACKAGE_VARIABLE: str(deployed.package),
        LOG_VARIABLE: str(deployed.folder / "one_row.db"),
        "PYTHONPATH": str(REPOSITORY),
    }

    def contender(name: str) -> Contender:
        def serve() -> Served:
            port = free_port()
            arguments = ["--factory", f"tests.benchmarks.baselines:{name}", "--host", HOST, "--port", str(port)]
            quiet = ["--workers", "1", "--no-access-log", "--log-level", "warning"]
            command = [sys.executable, "-m", "uvicorn", *arguments, *quiet]
            return Served(command, settings, port, deployed.folder / f"{name}.log")

        return Contender(serve)

    functions = {TORCH: "torch_eager", ONNX: "onnx_runtime", ONE_ROW: "one_row", NOTHING: "nothing"}
    return {name: contender(function) for name, function in functions.items()}


def compare(contenders: Mapping[str, Contender], used: Path, options: ServingOptions) -> set[str]:
    """Load all in turn; ids of the predictions that were acknowledged."""
    rounds, seconds = (1, 0.3) if options.quick else (3, 3.5)
    requests, labels = pictures(used)
    acknowledged: set[str] = set()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as generator:

        def visit(name: str, contender: Contender) -> None:
            def send(port: int, connections: int, seconds: float) -> Load:
                call = generator.submit(load.in_turn, port, requests, connections=connections, seconds=seconds)
                return call.result()

            def checked(found: Load, connections: int) -> None:
                if name != NOTHING:
                    acknowledged.update(judge([*found.first, *found.answers], labels, contender.errors[connections]))

            turn = len(contender.ready)
            with contender.serve() as server:
                checked(send(server.port, CONNECTIONS[-1], min(seconds, 1.0)), CONNECTIONS[-1])
                for connections in CONNECTIONS[turn % 3 :] + CONNECTIONS[: turn % 3]:
                    before = server.cpu_seconds()
                    found = send(server.port, connections, seconds)
                    cpu_us = 1e6 * (server.cpu_seconds() - before) / max(len(found.answers), 1)
                    contender.rounds[connections].append(dataclasses.replace(summarise(found), cpu_us=cpu_us))
                    checked(found, connections)
                contender.ready.append(server.ready_seconds)
                contender.megabytes.append(server.megabytes())
                contender.libraries = server.libraries()

        alternately({name: partial(visit, name, each) for name, each in contenders.items()}, rounds)
    return acknowledged


def pictures(used: Path) -> tuple[Requests, dict[int, str]]:
    """Test pictures as uploads, and what the package says of them."""
    from fashion.images.image_store import to_png
    from fashion.model.predictor import Predictor

    predictor = Predictor(package.read(used))
    images = fashion_mnist(None).test.images[: 2 * NUM_PICTURES]
    found = predictor.predict(images)
    ordered = np.sort(found.probabilities, axis=1)
    clear = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > CLEAR_MARGIN)[:NUM_PICTURES].tolist()
    names = predictor.package.class_names
    requests = [(row, load.upload("/predict", [to_png(images[row])])) for row in clear]
    return requests, {row: names[found.labels[row]] for row in clear}


def judge(answers: Sequence[Answer], labels: Mapping[int, str], errors: Counter[str]) -> Iterator[str]:
    """Count what is wrong with answers to uploads; ids of those that are right and have one."""
    for answer in answers:
        if answer.status != 200:
            errors["lost" if answer.status == LOST else f"status {answer.status}"] += 1
            continue
        content = json.loads(answer.body)
        if content["label"] != labels[answer.request]:
            errors["another label"] += 1
        if "prediction_id" in content:
            yield content["prediction_id"]


def summarise(found: Load) -> Round:
    """Rate and latencies of one load."""
    milliseconds = 1000 * np.array([answer.seconds for answer in found.answers])
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99]).tolist()
    return Round(len(found.answers) / found.seconds, p50, p95, p99, found.cpu_seconds / found.seconds)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port


def _built(overrides: Sequence[str], folder: Path, options: ServingOptions) -> set[Path]:
    """The bentos that a run of the flow adds."""
    before = set(folder.glob("bentoml/bentos/*/*/bento.yaml"))
    run_flow("deploy_flow", overrides, folder, options)
    return {file.parent for file in set(folder.glob("bentoml/bentos/*/*/bento.yaml")) - before}


def run_flow(flow: str, arguments: Sequence[str], folder: Path, options: ServingOptions) -> None:
    """Run a flow, its state in a folder, and its registry in the home that is measured where one is named.

    Raises:
        SystemExit: it failed.
    """
    settings = environment(folder)
    if options.home is not None:
        settings["MLFLOW_TRACKING_URI"] = f"sqlite:///{options.home.resolve() / 'mlflow.db'}"
    command = [options.python, str(REPOSITORY / "flows" / f"{flow}.py"), "run", *arguments]
    say(" ".join(command))
    done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)} failed:\n{done.stdout[-5000:]}")


def _speed(contenders: Mapping[str, Contender], rounds: int) -> Table:
    rows: list[dict[str, Cell]] = []
    for connections, (name, contender) in itertools.product(CONNECTIONS, contenders.items()):
        found = contender.rounds[connections]
        rows.append(
            {
                "connections": connections,
                "server": name,
                "requests/s": Spread(tuple(each.per_second for each in found)),
                "p50 ms": Spread(tuple(each.p50 for each in found)),
                "p95 ms": Spread(tuple(each.p95 for each in found)),
                "p99 ms": Spread(tuple(each.p99 for each in found)),
                "CPU us/request": Spread(tuple(each.cpu_us for each in found)),
                "errors": contender.errors[connections].total(),
                "generator, cores": statistics.median(each.generator for each in found),
            }
        )
    return Table(
        "Serving",
        rows,
        f"Median (range) of {rounds} rounds in turn, each server started anew each round and alone on the machine with "
        f"the generator; one worker, {NUM_PICTURES} test pictures of 28x28 as PNG uploads; connections are opened one "
        "by one before, and kept open. All run on uvicorn, without access log. Every answer's label is checked against "
        "the package.",
        {"p50 ms": ".1f", "p95 ms": ".1f", "p99 ms": ".1f", "generator, cores": ".2f"},
    )


def _footprint(contenders: Mapping[str, Contender]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "server": name,
            "ready s": Spread(tuple(contender.ready)),
            "worker MB": Spread(tuple(each[0] for each in contender.megabytes)),
            "of it PSS": Spread(tuple(each[1] for each in contender.megabytes)),
            "all processes MB": Spread(tuple(each[2] for each in contender.megabytes)),
            "loop, parser": contender.libraries,
        }
        for name, contender in contenders.items()
    ]
    return Table(
        "Start and memory of servers",
        rows,
        "Ready: from the start of the process to the first 200 of /readyz. Memory: resident, after the load. Loop and "
        "parser: what the worker has mapped.",
        {"ready s": ".1f"},
    )


def _targets(contenders: Mapping[str, Contender], num_acknowledged: int, num_lost: int) -> Table:
    own = contenders[PROJECT]
    rows: list[dict[str, Cell]] = []

    def row(target: str, aim: str, found: float | Spread, spec: str, holds: bool) -> None:
        rows.append({"target": target, "aim": aim, "found": format(found, spec), "holds": "yes" if holds else "NO"})

    for other, least in ((TORCH, FASTER_THAN_TORCH), (ONNX, AS_FAST_AS_ONNX), (ONE_ROW, AS_FAST_AS_ONE_ROW)):
        for connections in CONNECTIONS:
            pairs = zip(own.rounds[connections], contenders[other].rounds[connections], strict=True)
            ratio = Spread(tuple(mine.per_second / theirs.per_second for mine, theirs in pairs))
            target = f"requests/s at {connections}, times {other}"
            row(target, f"at least {least}", ratio, ".2f", statistics.median(ratio.values) >= least)
    most = CONNECTIONS[-1]
    for target, aim, spread in (
        (f"p95 ms at {most}", P95_MS, Spread(tuple(each.p95 for each in own.rounds[most]))),
        ("ready s", READY_SECONDS, Spread(tuple(own.ready))),
        ("worker MB", MEMORY_MB, Spread(tuple(each[0] for each in own.megabytes))),
    ):
        row(target, f"at most {aim:g}", spread, ".1f", statistics.median(spread.values) <= aim)
    errors = sum(each.total() for each in own.errors.values())
    row("errors", "none", errors, ".0f", errors == 0)
    row(f"acknowledged predictions not in the log, of {num_acknowledged:,}", "none", num_lost, ".0f", num_lost == 0)
    return Table(
        "Targets of serving",
        rows,
        "Ratios are of loads of the same round. A time that misses its target is reported and fails nothing.",
    )


if __name__ == "__main__":
    run_one("serving")
