"""ASGI applications: FastAPI around the same network, on torch and on ONNX Runtime; no framework; and nothing.

Each is run by `python -m uvicorn --factory tests.benchmarks.contenders.asgi:NAME`. They have no limits and reject
nothing; only `one_row` keeps a log.
"""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fashion.images.transform import normalise
from fashion.model import package
from fashion.model.package import Package
from tests.benchmarks.contenders.served_package import answer, package_folder, read_package

LOG_VARIABLE = "BENCHMARK_LOG"
"""SQLite file of the one that keeps rows."""
EMPTY_ANSWER = b'{"label":"Coat","probabilities":{' + b'"Ankle boot":0.012345,' * 20 + b'"Bag":0.1}}'
"""As long as a real one."""


def torch_eager() -> Any:
    """The usual way: torch's network as it was trained, in the event loop."""
    import torch
    from fastapi import FastAPI, UploadFile

    torch.set_num_threads(1)
    used = read_package()
    network = torch_network(used, package_folder())
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    async def predict(image: UploadFile) -> dict[str, Any]:
        inputs = torch.from_numpy(_decode(await image.read(), used))
        with torch.inference_mode():
            probabilities = torch.softmax(network(inputs) / used.temperature, dim=1)[0]
        return answer(probabilities.numpy(), used)

    return app


def torch_network(used: Package, folder: Path) -> Any:
    """The network of a package as it was trained, for evaluation.

    Args:
        used: the package.
        folder: that it was read from.
    """
    import safetensors.torch

    from fashion.config.train import ArchitectureConfig
    from fashion.training import models

    network = models.build(
        ArchitectureConfig(**used.architecture),
        channels=used.channels,
        size=used.size,
        num_classes=len(used.class_names),
    )
    network.load_state_dict(safetensors.torch.load_file(folder / package.WEIGHTS))
    return network.eval()


def onnx_runtime() -> Any:
    """The same endpoint around the exported network: one thread of ONNX Runtime."""
    from fastapi import FastAPI, UploadFile

    from fashion.metrics.calibration import softmax
    from fashion.model.predictor import Predictor

    used = read_package()
    network = Predictor(used).network
    app = FastAPI()

    @app.get("/readyz")
    async def readyz() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    async def predict(image: UploadFile) -> dict[str, Any]:
        logits, _ = network(_decode(await image.read(), used))
        return answer(softmax(logits, used.temperature)[0], used)

    return app


def one_row() -> Any:
    """The least that keeps what it answers: no framework, and a row of four columns committed before each answer."""
    import gc
    import sqlite3
    import time

    from bentos.web import uploads
    from fashion.metrics.calibration import softmax
    from fashion.model.predictor import Predictor
    from fashion.predictions.record import new_prediction_id

    used = read_package()
    network = Predictor(used).network
    log = sqlite3.connect(os.environ[LOG_VARIABLE], isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE IF NOT EXISTS predictions (id TEXT PRIMARY KEY, time INT, label INT, confidence REAL)",
    ):
        log.execute(statement)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, content_type = await _read(receive), dict(scope["headers"]).get(b"content-type", b"").decode()
        content: dict[str, Any] = {"ready": True}
        if scope["path"] != "/readyz":
            logits, _ = network(_decode(uploads.read_upload(body, content_type).data, used))
            content = answer(softmax(logits, used.temperature)[0], used) | {"id": new_prediction_id()}
            row = (content["id"], time.time_ns(), used.class_names.index(content["label"]), content["confidence"])
            log.execute("INSERT INTO predictions VALUES (?, ?, ?, ?)", row)
        await _send(send, json.dumps(content).encode())

    gc.collect()
    gc.freeze()
    return app


def nothing() -> Any:
    """An endpoint that reads what it is sent and answers the same to all: how fast asking can be at all."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await _read(receive)
            await _send(send, EMPTY_ANSWER)

    return app


async def _read(receive: Any) -> bytes:
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(pieces)


async def _send(send: Any, body: bytes) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _decode(data: bytes, used: Package) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(data)) as picture:
        image = np.asarray(picture.convert("L" if used.channels == 1 else "RGB").resize((used.size, used.size)))
    return normalise(image[None], used.mean, used.std)
