"""Debian's Prometheus on loopback, with its data in a folder of the test. Knows no service."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.served import free_port


class Prometheus:
    """A server that answers queries."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str, moment: float | None = None) -> list[dict[str, Any]]:
        """Evaluate an expression now, or at a moment; return its series.

        Raises:
            AssertionError: it is not an expression.
        """
        given = {"query": expression} if moment is None else {"query": expression, "time": str(moment)}
        answer = self.get("/api/v1/query?" + urllib.parse.urlencode(given))
        assert answer["status"] == "success", (expression, answer)
        result = answer["data"]["result"]
        return [{"metric": {}, "value": result}] if answer["data"]["resultType"] == "scalar" else result

    def get(self, path: str) -> Any:
        """JSON of the HTTP API."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return json.loads(error.read())


def program(name: str) -> str:
    """Path of `prometheus` or `promtool`; skips the test where Debian's package is missing, and fails it in CI."""
    found = shutil.which(name)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is missing: apt-get install prometheus")
    return found


@contextlib.contextmanager
def serve(config: Mapping[str, Any], folder: Path, files: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """Serve Prometheus.

    Args:
        config: what prometheus.yml says.
        folder: for its files and its data; made.
        files: copied beside prometheus.yml.
    """
    command = [program("prometheus")]
    folder.mkdir(parents=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))
    for file in files:
        shutil.copy(file, folder)
    port = free_port()
    command += [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Prometheus(port)
        _wait(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _wait(server: Prometheus, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"{server.url}/-/ready", timeout=5).status == 200:
                return
        time.sleep(0.1)
    pytest.fail(f"Prometheus did not become ready:\n{log.read_text()[-2000:]}")
