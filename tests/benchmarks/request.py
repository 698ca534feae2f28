"""Where the time of a request goes, in one process: each part alone, and a whole request."""

import asyncio
import dataclasses
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fashion.home import current_home
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from tests.benchmarks import load
from tests.benchmarks.champion import load_package
from tests.benchmarks.measurement import Cell, ServingOptions, Table, fashion_mnist, run_one, say

BATCHES = (1, 8, 64)
"""Pictures that share one call of the network and one commit of the log."""
ROUNDS = 12
NUM_PICTURES = 512
FORM = "multipart/form-data; boundary=fashion-benchmark-boundary"

Work = Callable[[], object]


def tables(options: ServingOptions) -> list[Table]:
    """Measure the parts of a request, and the whole of it."""
    data = fashion_mnist(1000 if options.quick else None)
    package = load_package(options.home, data, quick=options.quick)
    calls = {size: 2 if options.quick else max(5, 40 // size) for size in BATCHES}
    folder = Path(tempfile.mkdtemp(dir=current_home().root))  # the disk that the log is on
    try:
        parts = {size: _parts(package, data.test.images[:NUM_PICTURES], size, folder, calls[size]) for size in BATCHES}
        found: dict[str, dict[int, float]] = {name: {} for name in parts[BATCHES[0]]}
        for size, works in parts.items():
            for name, least in _timed(works, calls[size], size).items():
                found[name][size] = least
            say(f"parts at {size}")
        whole = asyncio.run(_whole(package, data.test.images[:NUM_PICTURES], folder, calls))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sums = {size: sum(least[size] for least in found.values()) for size in BATCHES}
    rows: list[dict[str, Cell]] = [_row(name, least) for name, least in found.items()]
    rows.append(_row("sum of the parts", sums))
    rows.append(_row("whole request, from ASGI to ASGI", whole))
    rest = {size: whole[size] - sums[size] for size in BATCHES}
    rows.append(
        {"part": "rest: limits, metrics, event loop, threads", **{_column(size): rest[size] for size in BATCHES}}
    )
    return [
        Table(
            "Where a request's time goes",
            rows,
            f"CPU microseconds of a picture, the least of {ROUNDS} rounds, since other work on the "
            "machine only adds; for requests that share a batch of 1, 8 or 64 pictures of 28x28 as PNG uploads. One "
            "process, without HTTP parser and sockets. Waiting for the disk is no CPU time. Parts run one after the "
            "other with warm caches; of single requests the rest is larger where other processes use the same cores.",
            {_column(size): ",.1f" for size in BATCHES},
        )
    ]


def _column(size: int) -> str:
    return f"us at {size}"


def _row(name: str, times: Mapping[int, float]) -> dict[str, Cell]:
    return {"part": name, **{_column(size): times[size] for size in BATCHES}}


def _timed(works: Mapping[str, Work], calls: int, size: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            work()
            started = time.process_time()
            for _ in range(calls):
                work()
            times[name].append(1e6 * (time.process_time() - started) / calls / size)
    return {name: min(each) for name, each in times.items()}


def _parts(package: Package, images: Images, size: int, folder: Path, calls: int) -> dict[str, Work]:
    """What is done for `size` pictures, by name, in the order of a request."""
    from bentos.classifier import schemas
    from bentos.classifier.batcher import _rows
    from bentos.web import responses, uploads
    from fashion.images import image_store, preparation
    from fashion.images.statistics import statistics
    from fashion.images.transform import normalise
    from fashion.metrics.calibration import softmax
    from fashion.model.predictor import axes, project
    from fashion.model.typicality import Typicality
    from fashion.predictions.log import PredictionLog
    from fashion.predictions.record import PredictionRecord, new_prediction_id

    predictor, typicality, names = Predictor(package), Typicality.of(package), package.class_names
    batch = images[:size]
    pngs = [image_store.to_png(image) for image in batch]
    bodies = [load.upload("/predict", [png]).partition(b"\r\n\r\n")[2] for png in pngs]
    inputs = normalise(batch, package.mean, package.std)
    logits, embeddings = predictor.network(inputs)
    predictions, onto = predictor.predict(batch), axes(package)
    log = PredictionLog(folder / f"predictions-{size}.db")

    def records() -> list[PredictionRecord]:
        return [
            PredictionRecord(
                prediction_id=new_prediction_id(),
                time_us=time.time_ns() // 1000,
                model_version="1",
                model_name="fashion-classifier",
                model_digest=package.digest,
                role="champion",
                image_sha256=image_store.digest(image),
                latency_ms=1.0,
                **row,
            )
            for image, row in zip(batch, _rows(predictions), strict=True)
        ]

    made = iter([records() for _ in range(ROUNDS * (calls + 1))])
    version = schemas.ModelVersion("fashion-classifier", "1", package.digest)
    probabilities = predictions.probabilities.tolist()

    def answers() -> None:
        for row in probabilities:
            named = {name: round(value, 6) for name, value in zip(names, row, strict=True)}
            steps = ("read as PNG, 28x28, L", "used as it is: the size fits")
            answer = schemas.PredictionAnswer("0" * 36, names[0], 0.5, named, version, steps, True, 0.5, names[:2])
            responses.json_response(answer)

    return {
        "read the form": lambda: [uploads.read_upload(body, FORM) for body in bodies],
        "decode the PNG": lambda: [
            preparation.prepare(png, size=package.size, channels=package.channels) for png in pngs
        ],
        "normalise": lambda: normalise(np.stack(list(batch)), package.mean, package.std),
        "network": lambda: predictor.network(inputs),
        "softmax": lambda: softmax(logits, package.temperature),
        "image statistics": lambda: statistics(batch),
        "projection of the embedding": lambda: project(embeddings, onto),
        "typicality": lambda: typicality and typicality.shares(typicality.distances(predictions)).tolist(),
        "records, with id and digest": records,
        "commit of the log": lambda: log.append(next(made)),
        "answer and JSON": answers,
    }


async def _whole(package: Package, images: Images, folder: Path, calls: Mapping[int, int]) -> dict[int, float]:
    """Requests to the service's ASGI application, as many at once as a batch is to hold."""
    from bentos.classifier.app import App
    from bentos.classifier.deployment import Deployment
    from bentos.classifier.worker import Worker
    from bentos.web.request_metrics import Identity
    from fashion.config.compose import compose, load_as
    from fashion.config.serve import ServeConfig
    from fashion.images.image_store import to_png

    assert package.folder is not None
    settings = load_as(ServeConfig, compose(root=ServeConfig.root)).serve
    model = {"name": "fashion-classifier", "version": "1", "digest": package.digest}
    worker = Worker(
        Deployment(settings, model, None),
        dataclasses.replace(current_home(), root=folder, images=str(folder), reports=str(folder), shared_log=None),
        {},
        model=package.folder,
        shadow=None,
        folder=folder,
        identity=Identity("benchmark", "1", "Classifier", 1),
    )
    app = App(_no_bento, lambda: worker)
    requests = [load.upload("/predict", [to_png(image)]).partition(b"\r\n\r\n")[2] for image in images]

    async def ask(row: int) -> None:
        body, sent = requests[row % len(requests)], []
        headers = [(b"content-type", FORM.encode()), (b"content-length", str(len(body)).encode())]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
        await app(scope, receive, send)  # type: ignore[arg-type]
        if sent[0]["status"] != 200:
            raise SystemExit(f"error: a request was answered with {sent[0]['status']}")

    async def lane(first: int, count: int) -> None:
        for row in range(first, first + count):
            await ask(row)

    found: dict[int, float] = {}
    for size in BATCHES:
        times = []
        for _ in range(ROUNDS):
            started = time.process_time()
            await asyncio.gather(*(lane(7 * number, calls[size]) for number in range(size)))
            times.append(1e6 * (time.process_time() - started) / calls[size] / size)
        found[size] = min(times)
        say(f"whole requests, {size} at once")
    worker.close()
    return found


async def _no_bento(*_: object) -> None:
    raise AssertionError("BentoML is not asked")


if __name__ == "__main__":
    run_one("request")
