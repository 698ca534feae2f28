"""The Firestore emulator in a process of its own. Knows nothing of what is stored.

Its state lives in memory; projects do not see each other, so a test that names its own project starts empty.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

SCRIPT = "cloud_firestore_emulator"
STARTS_SECONDS = 60.0


def find() -> Path | None:
    """Find the emulator's script: at `FIRESTORE_EMULATOR`, on the PATH, or in a Google Cloud SDK."""
    if named := os.environ.get("FIRESTORE_EMULATOR"):
        return Path(named)
    if found := shutil.which(SCRIPT):
        return Path(found)
    gcloud = shutil.which("gcloud")
    folders = [
        os.environ.get("CLOUDSDK_ROOT_DIR"),
        Path(gcloud).resolve().parents[1] if gcloud else None,
        *("/usr/lib/google-cloud-sdk", "/usr/share/google-cloud-sdk", "/usr/local/google-cloud-sdk"),
        *("/opt/google-cloud-sdk", "/opt/homebrew/share/google-cloud-sdk", "/snap/google-cloud-cli/current"),
        Path.home() / "google-cloud-sdk",
    ]
    scripts = (Path(folder, "platform", "cloud-firestore-emulator", SCRIPT) for folder in folders if folder)
    return next((script for script in scripts if script.is_file()), None)


@contextlib.contextmanager
def serve() -> Iterator[str]:
    """Run an emulator on a free loopback port and yield the value for `FIRESTORE_EMULATOR_HOST`.

    Where there is none, the test is skipped; on CI it fails.
    """
    script = find()
    if script is None or shutil.which("java") is None:
        missing = "java" if script else f"{SCRIPT} (the package google-cloud-cli-firestore-emulator, or "
        missing += "" if script else "`gcloud components install cloud-firestore-emulator`, or FIRESTORE_EMULATOR)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"the Firestore emulator needs {missing}")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [script, "start", f"--host={address.partition(':')[0]}", f"--port={address.partition(':')[2]}"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # java is a child of the script
        )
        try:
            deadline = time.monotonic() + STARTS_SECONDS
            while not _answers(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    output.seek(0)
                    pytest.fail(f"the Firestore emulator did not start:\n{output.read()[-4000:].decode()}")
                time.sleep(0.1)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@dataclass
class Reads:
    """What clients have asked for, and how much came back."""

    queries: list[Any] = field(default_factory=list)
    """Each a StructuredQuery."""
    documents: int = 0
    """Documents that queries returned: what Firestore counts, and bills, as reads."""


@contextlib.contextmanager
def counted() -> Iterator[Reads]:
    """Count what every client of this process reads by queries, in the responses as they come from the server."""
    from google.cloud.firestore_v1.services.firestore import FirestoreClient

    reads, run_query = Reads(), FirestoreClient.run_query

    def count(client: Any, request: Any, **options: Any) -> Iterator[Any]:
        reads.queries.append(request["structured_query"])
        for response in run_query(client, request=request, **options):
            reads.documents += "document" in response
            yield response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FirestoreClient, "run_query", count)
        yield reads
