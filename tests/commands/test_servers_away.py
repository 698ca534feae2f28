"""Commands whose server is away, in each kind of trouble: one sentence with the remedy, in time; nothing is lost."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from support import google_credentials, troubles
from support.log_rows import record
from support.server_cases import ID, PASSWORD, SERVERS, TABLE, UNKNOWN, UNKNOWN_TABLE

from fashion.commands.main import main
from fashion.predictions import removal
from fashion.predictions.log import PredictionLog

SECONDS = 1
"""What FASHION_SERVER_SECONDS says."""
REMEDY = re.compile(
    r"\b(check|set|look at|try again|log in|give|run|create|copy|raise|does the account have|wait|correct)\b"
)
OTHERWISE = {
    "drift failed": (0, "the state of alerts cannot be read ("),
    "log forget --export": (1, "export "),
}
"""Command -> exit code and beginning, where it goes on without the server: an alert is sent all the same, and what can
be deleted is."""
PRUNES = "log prune"
"""It deletes rows first, and notes which pictures are left to delete; it finds reports by their age."""
CASES = [
    (server, trouble, command)
    for server, each in SERVERS.items()
    for trouble in troubles.ALL
    for command in each.commands
]


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an account of Google's that is worth nothing."""
    with google_credentials.serve(tmp_path_factory.mktemp("google")) as path:
        yield path


@pytest.fixture
def home(tmp_path: Path, migrated_database: Path, credentials: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with one prediction, and tables of feedback; nothing is executed in this process's place."""
    for name, value in {"FASHION_HOME": tmp_path, "GOOGLE_APPLICATION_CREDENTIALS": credentials}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("FASHION_SERVER_SECONDS", str(SECONDS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execv", lambda *words: pytest.fail(f"nobody was asked before {words} took over"))
    shutil.copy(migrated_database, tmp_path / "mlflow.db")
    with PredictionLog(tmp_path / "predictions.db") as log:
        log.append([record(prediction_id=ID, time_us=1_750_000_000_000_000)])
    for name, prediction_id in ((TABLE, ID), (UNKNOWN_TABLE, UNKNOWN)):
        (tmp_path / name).write_text(f"prediction_id,true_label\n{prediction_id},top\n")
    return tmp_path


def _forget_registry() -> None:
    """Let MLflow read its address from the environment anew."""
    before = dict(os.environ)
    mlflow.set_tracking_uri(None)  # which may remove it there
    os.environ.update(before)


def timed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code and output of a command that takes no longer than a server has; of two runs, if the first imports."""
    elapsed = []
    for _ in range(2):
        before = dict(os.environ)
        _forget_registry()
        started = time.monotonic()
        code = main(arguments)
        elapsed.append(time.monotonic() - started)
        printed = capsys.readouterr()
        os.environ.clear()
        os.environ.update(before)
        if elapsed[-1] < SECONDS + 2:
            return code, printed.out, printed.err
    raise AssertionError(f"took {elapsed} s")


@pytest.mark.fault("MLflow, a database, a shared log or a bucket in any trouble under a command")
@pytest.mark.parametrize(("server", "trouble", "command"), CASES)
def test_a_command_gives_a_server_up_in_time_and_says_what_to_do(
    server: str,
    trouble: str,
    command: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached = SERVERS[server]
    is_tls = trouble == "TLS"
    with getattr(troubles, reached.protocol)(trouble) as port:
        values: dict[str, Any] = {"port": port, "scheme": "https" if is_tls else "http"}
        values["tls"] = "?sslmode=require" if is_tls else ""
        for name, value in reached.variables.items():
            monkeypatch.setenv(name, value.format(**values))
        code, out, err = timed(reached.commands[command], capsys)
    err = err or "\n".join(caplog.messages)  # warnings go there when nothing else is set up
    assert PASSWORD not in out + err
    assert "Traceback" not in err
    said = " ".join(out.split()) if command == "status" else err
    expected, start = OTHERWISE.get(command, (1, "error: "))
    assert code == expected, (out, err)
    if command == "status":
        assert said.count("cannot be read: ") == 1
        assert "1 in all" in said
        said = said.partition("cannot be read: ")[2].partition(" service ")[0]
    else:
        assert said.startswith(start)
        said = said.splitlines()[0]
        assert command in OTHERWISE or err.count("\n") == 1, err
    assert any(name.format(**values) in said for name in reached.names), said
    assert REMEDY.search(said), said
    assert "HTTPConnectionPool" not in said
    with PredictionLog(home / "predictions.db") as log:
        left = removal.dropped_pictures(log)[0]
        assert command in OTHERWISE or log.count() == 1 or (command == PRUNES and (left or "reports" in server))
