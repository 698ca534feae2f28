"""A real `mlflow server` on loopback, in a process of its own. Knows no experiments and no models."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.served import free_port

STARTS_SECONDS = 120.0


@contextlib.contextmanager
def serve(
    backend: str, artifacts: str, *, proxied: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Serve a tracking store and registry, and yield the value for `MLFLOW_TRACKING_URI`.

    Args:
        backend: SQLAlchemy's address of the database, which may be empty.
        artifacts: folder or `gs://` address of artifacts.
        proxied: True where clients send artifacts to the server; False where they write to `artifacts` themselves.
        environment: variables besides those of this process.
    """
    port = free_port()
    where = ["--artifacts-destination", artifacts] if proxied else ["--default-artifact-root", artifacts]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", backend, *where, *([] if proxied else ["--no-serve-artifacts"])]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory(prefix="fashion-mlflow-") as folder:
        log = Path(folder, "log")
        with log.open("wb") as output:
            server = subprocess.Popen(
                command,
                env={**os.environ, **quiet, **(environment or {})},
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for_answer(f"{address}/health", server, log)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def wait_for_answer(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers; fail with the end of the server's log if it ends before, or takes too long."""
    deadline = time.monotonic() + STARTS_SECONDS
    while not _answers(address):
        if server.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the server did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False
