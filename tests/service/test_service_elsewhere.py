"""A service that stores pictures in a bucket, prunes old rows, and handles one request at a time."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bucket import serve as serve_bucket
from support.machine import Machine
from support.served import Served

from fashion.images import image_store
from fashion.predictions.log import PredictionLog
from fashion.storage.address import open_store

SECONDS = 2
"""Age from which rows are pruned."""


@pytest.fixture(scope="module")
def narrow_bento(challenged: Machine) -> str:
    challenged.flow(
        "run",
        "serve.gallery=0",
        "serve.limits.concurrency=1",
        "serve.log.images=true",
        f"serve.log.retention_days={SECONDS / 86_400}",
        name="deploy_flow",
    )
    tag: str = challenged.runs("DeployFlow")[-1].data.bento
    return tag


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with serve_bucket("pictures") as url:
        yield url


def serve(machine: Machine, bento: str, bucket: str, folder: Path) -> Served:
    folder.mkdir(exist_ok=True)
    environment = machine.serving(
        FASHION_HOME=str(folder / "var"), FASHION_IMAGES="gs://pictures/seen", STORAGE_EMULATOR_HOST=bucket
    )
    return Served(bento, environment, folder / "service.log")


def test_pictures_are_stored_in_a_bucket_and_old_rows_are_pruned(
    challenged: Machine,
    narrow_bento: str,
    bucket: str,
    pngs: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = serve(challenged, narrow_bento, bucket, tmp_path / "first")
    ids = [served.predict(png)["prediction_id"] for png in pngs[:5]]
    assert served.stop() == 0
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket)
    store = open_store("gs://pictures/seen")
    with PredictionLog(tmp_path / "first/var/predictions.db") as log:
        for row, prediction_id in enumerate(ids):
            image = image_store.get(store, log.get(prediction_id).record.image_sha256)
            assert image_store.to_png(image) == pngs[row]
        time.sleep(SECONDS)
        served = serve(challenged, narrow_bento, bucket, tmp_path / "first")
        until = time.monotonic() + 20
        while log.count() and time.monotonic() < until:
            time.sleep(0.1)
        assert log.count() == 0
        assert served.stop() == 0


def test_a_request_beyond_the_limit_gets_a_retry_after(
    challenged: Machine, narrow_bento: str, bucket: str, pngs: list[bytes], tmp_path: Path
) -> None:
    served = serve(challenged, narrow_bento, bucket, tmp_path / "second")
    png = pngs[0]
    head = (
        f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: {len(png)}\r\n\r\n".encode()
    )
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(head + png[:10])
        time.sleep(0.5)
        status, headers, content = served.request("POST", "/predict", png, {"content-type": "image/png"})
        answer: dict[str, Any] = json.loads(content)["error"]
        assert (status, answer["code"], headers["retry-after"]) == (503, "overloaded", "1")
        slow.sendall(png[10:])
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
    assert "prediction_id" in served.predict(png)
    assert served.stop() == 0
