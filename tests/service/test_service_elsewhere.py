"""A service that keeps pictures and reports in a bucket, prunes old rows, and handles one request at a time."""

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.machine import Machine
from support.served import Served
from support.stores import KINDS, Clouds

from fashion.drift import reports
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


def serve(machine: Machine, bento: str, folder: Path, **environment: str) -> Served:
    folder.mkdir(exist_ok=True)
    return Served(bento, machine.serving(FASHION_HOME=str(folder / "var"), **environment), folder / "service.log")


def libraries(served: Served) -> set[str]:
    """Names of the files that the service's processes have loaded; empty where the system does not tell."""
    processes = psutil.Process(served.process.pid).children(recursive=True)
    maps = [Path(f"/proc/{process.pid}/maps") for process in processes]
    return {line.rpartition("/")[2] for path in maps if path.exists() for line in path.read_text().splitlines()}


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_reports_are_in_a_bucket(
    kind: str,
    challenged: Machine,
    narrow_bento: str,
    pngs: list[bytes],
    clouds: Clouds,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = clouds.bucket(kind, monkeypatch)
    pictures, stored = open_store(f"{bucket}/seen"), open_store(f"{bucket}/reports")
    addresses = {"FASHION_IMAGES": pictures.address, "FASHION_REPORTS": stored.address}
    served = serve(challenged, narrow_bento, tmp_path / "bucket", **addresses, **clouds.server(kind).environment)
    assert served.json("GET", "/monitoring/reports") == {"reports": []}
    reports.publish(stored, "20260101T000000Z-v1", "<h1>drift</h1>", {"rows": 7})
    assert served.request("GET", "/monitoring/reports/20260101T000000Z-v1")[2] == b"<h1>drift</h1>"
    ids = [served.predict(png)["prediction_id"] for png in pngs[:5]]
    if sys.platform == "linux":
        assert ("_obstore.abi3.so" in libraries(served)) == (kind != "gs")
    assert served.stop() == 0
    with PredictionLog(tmp_path / "bucket/var/predictions.db") as log:
        for row, prediction_id in enumerate(ids):
            image = image_store.get(pictures, log.get(prediction_id).record.image_sha256)
            assert image_store.to_png(image) == pngs[row]


def test_old_rows_are_pruned(challenged: Machine, narrow_bento: str, pngs: list[bytes], tmp_path: Path) -> None:
    served = serve(challenged, narrow_bento, tmp_path / "first")
    for png in pngs[:5]:
        served.predict(png)
    assert served.stop() == 0
    with PredictionLog(tmp_path / "first/var/predictions.db") as log:
        assert log.count() == 5
        time.sleep(SECONDS)
        served = serve(challenged, narrow_bento, tmp_path / "first")
        until = time.monotonic() + 20
        while log.count() and time.monotonic() < until:
            time.sleep(0.1)
        assert log.count() == 0
        assert served.stop() == 0


def test_a_request_beyond_the_limit_gets_a_retry_after(
    challenged: Machine, narrow_bento: str, pngs: list[bytes], tmp_path: Path
) -> None:
    served = serve(challenged, narrow_bento, tmp_path / "second")
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
