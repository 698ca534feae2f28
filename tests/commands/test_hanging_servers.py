"""Commands whose server accepts connections and never answers: one sentence with the remedy, in time."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.log_rows import record

from fashion.commands import log_forget  # noqa: F401  # imported before times are measured
from fashion.commands.main import main
from fashion.predictions.log import PredictionLog

SECONDS = 2
"""What FASHION_SERVER_SECONDS says."""
ID = "01a210f9-adec-7a93-8180-2b2d71881f13"
ADDRESSES = {
    "firestore": {"FASHION_LOG": "firestore://team", "FIRESTORE_EMULATOR_HOST": "127.0.0.1:{port}"},
    "postgresql": {"FASHION_LOG": "postgresql://me:secret@127.0.0.1:{port}/team"},
    "gs": {"FASHION_REPORTS": "gs://team/reports", "STORAGE_EMULATOR_HOST": "http://127.0.0.1:{port}"},
    "s3": {
        "FASHION_REPORTS": "s3://team/reports",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "asks",
    },
}
"""What is away -> the variables that lead there."""
REMEDIES = {
    "firestore": "it does not answer in time (504 Deadline Exceeded); check FASHION_LOG and the network, and try again",
    "postgresql": "it does not answer in time; check FASHION_LOG, and that its server is up",
    "gs": "; check the network, and the status of Google Cloud Storage; then try again",
    "s3": "does not answer: check AWS_REGION, AWS_ENDPOINT_URL and the network",
}
COMMANDS = {
    "forget": ["log", "forget", ID],
    "discard": ["log", "discard", "--source", "page"],
    "accept": ["drift", "accept", "20260101T000000Z-fashion-classifier-v3"],
}
CASES = [
    *((kind, command) for kind in ("firestore", "postgresql") for command in ("forget", "discard")),
    *((kind, command) for kind in ("gs", "s3") for command in ("forget", "accept")),
]


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.fault("a shared log or a bucket that hangs under a command")
@pytest.mark.parametrize(("kind", "command"), CASES)
def test_a_command_gives_a_server_up_in_time_and_says_what_to_do(
    kind: str,
    command: str,
    port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    monkeypatch.setenv("FASHION_SERVER_SECONDS", str(SECONDS))
    monkeypatch.chdir(tmp_path)
    for name, value in ADDRESSES[kind].items():
        monkeypatch.setenv(name, value.format(port=port))
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([record()])
    started = time.monotonic()
    assert main(COMMANDS[command]) == 1
    elapsed = time.monotonic() - started
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert " cannot be used: " in error
    assert error.endswith(f"{REMEDIES[kind]}\n")
    assert error.count("\n") == 1
    assert "secret" not in error
    assert elapsed < SECONDS + 2
