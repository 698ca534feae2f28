"""Requests a second of the served bento beside FastAPI, plain BentoML, LitServe and Ray Serve around its package."""

import dataclasses
import itertools
import json
import multiprocessing
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from fashion.model import package
from tests.benchmarks import load
from tests.benchmarks.contenders.commands import NOTHING, ONE_ROW, ONNX, TORCH, not_installed, others
from tests.benchmarks.deployed import deploy, with_shadow
from tests.benchmarks.load import LOST, Answer, Load
from tests.benchmarks.measurement import Cell, ServingOptions, Spread, Table, alternately, fashion_mnist, run_one
from tests.benchmarks.servers import Served

PROJECT = "this service: BentoML, ONNX Runtime, prediction log"
SHADOWED = "this service, with a shadow that scores all again"

CONNECTIONS = (1, 8, 64)
NUM_PICTURES = 500
CLEAR_MARGIN = 0.001
"""Pictures whose two likeliest classes are nearer have no right answer: torch and ONNX Runtime round differently."""

FASTER_THAN_TORCH = 2.0
AS_FAST_AS_ONNX = 0.9
AS_FAST_AS_ONE_ROW = 0.95
P95_MS = 70.0
READY_SECONDS = 4.0
MEMORY_MB = 250.0

Requests = list[tuple[int, bytes]]


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
        SystemExit: an answer of this service was wrong or missing, or a prediction that was acknowledged is not in the
            log. Errors of the others are in the table.
    """
    with tempfile.TemporaryDirectory() as folder:
        deployed = deploy(Path(folder), options)
        shadowed = with_shadow(deployed, options)
        servers = {PROJECT: deployed.serve, SHADOWED: shadowed.serve} | others(deployed.folder, deployed.package)
        contenders = {name: Contender(serve) for name, serve in servers.items()}
        acknowledged = compare(contenders, deployed.package, options)
        lost = acknowledged - deployed.logged()
    rounds = len(contenders[PROJECT].ready)
    yield _speed(contenders, rounds)
    yield _footprint(contenders)
    yield _targets(contenders, len(acknowledged), len(lost))
    own = {name: sum(contenders[name].errors.values(), Counter()) for name in (PROJECT, SHADOWED)}
    errors = {name: total for name, total in own.items() if total}
    if errors or lost:
        raise SystemExit(f"error: {len(lost)} acknowledged predictions are not in the log; wrong answers: {errors}")


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
        "by one before, and kept open. All but the endpoint that does nothing serve one package, on "
        "uvicorn, without access log; plain BentoML, LitServe "
        "and Ray Serve as their documentation writes a service, with the project's preparation of pictures, which "
        "FastAPI does without. Every answer's label is checked against the package."
        + "".join(f" {name.partition(',')[0]} is not installed: run make bench." for name in not_installed()),
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
        "Ready: from the start of the process to the first 200 of /readyz. Memory: resident, after the load. Worker: "
        "the largest process once the server is ready; LitServe and Ray Serve answer with several. Loop and parser: "
        "what they have mapped.",
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
