"""Addresses of servers, right and wrong: what is said of each, and that it is said soon."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from support import postgres
from support.served import free_port
from support.web import QuietHandler, serving

from fashion.commands.main import main
from fashion.home import REPOSITORY
from fashion.registry import server, tracking
from fashion.storage.servers import ServerUnavailable, check_database, without_password

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL server with a database `studies`, to which the user `guarded` needs a password."""
    import psycopg

    with postgres.serve() as address:
        postgres.create_database(address, "studies")
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
            (rules,) = connection.execute("SHOW hba_file").fetchone() or ("",)
            rule = "host all guarded 127.0.0.1/32 scram-sha-256\n"
            Path(rules).write_text(rule + Path(rules).read_text())
            connection.execute("SELECT pg_reload_conf()")
        yield address


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said does not depend on how long it is waited for."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@contextlib.contextmanager
def answering(status: int, content: str) -> Iterator[str]:
    """A server that gives one answer to everything."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            self.read_body()
            self.respond(status, content.encode())

    with serving(Handler) as url:
        yield url


@contextlib.contextmanager
def hanging() -> Iterator[int]:
    """The port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def said(address: str) -> str:
    with pytest.raises(ServerUnavailable) as caught:
        server.check(address)
    return str(caught.value)


# MLflow


def test_a_closed_port_is_one_sentence() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    assert said(address) == (
        f"MLflow at {address} cannot be reached: the connection was refused; check MLFLOW_TRACKING_URI, and that its "
        "server is up"
    )


def test_a_host_that_does_not_exist_is_told_from_one_that_is_down() -> None:
    assert "MLflow at http://me:***@no.invalid:5000 cannot be reached: there is no host of this name" in said(
        "http://me:secret@no.invalid:5000"
    )


@pytest.mark.fault("hanging MLflow server")
def test_a_server_that_hangs_is_given_up() -> None:
    with hanging() as port:
        assert "cannot be reached: it does not answer in time; check" in said(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (
            404,
            "<h1>Not found</h1>",
            "is no MLflow server: it answers /api/2.0/mlflow/experiments/search with 404; chec",
        ),
        (200, "<h1>Welcome</h1>", "is no MLflow server: it answers /api/2.0/mlflow/experiments/search with 200"),
        (200, '{"status": "ok"}', "is no MLflow server"),
        (200, "[]", "is no MLflow server"),
        (
            401,
            "",
            "refuses the request (401): set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACK",
        ),
        (
            403,
            "Invalid Host header",
            "refuses the request (403): give this user access, or start the server with `--allow",
        ),
        (503, "", "cannot be used: it answers 503; look at the server's log"),
        (400, json.dumps({"error_code": "INTERNAL_ERROR"}), "cannot be used: it answers 400; look at the server's log"),
    ],
)
def test_another_answer_says_what_is_wrong(status: int, content: str, message: str) -> None:
    with answering(status, content) as address:
        assert message in said(address)


def test_a_server_that_answers_is_used() -> None:
    with answering(200, '{"experiments": []}') as address:
        server.check(address)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("carrier-pigeon://me:secret@loft", "MLflow knows no address of this kind"),
        ("postgres://me:secret@host/mlflow", "MLflow knows no address of this kind"),
        ("./mlruns", "MLflow no longer stores runs in a folder"),
    ],
)
def test_an_address_of_another_kind_is_refused_with_those_that_work(address: str, reason: str) -> None:
    assert said(address) == (
        f"{without_password(address)} cannot be used: {reason}; set MLFLOW_TRACKING_URI to http://host:5000, or to "
        "postgresql://user:password@host/database"
    )


def test_a_server_that_goes_away_during_a_step_is_one_sentence_too() -> None:
    import mlflow

    address = f"http://127.0.0.1:{free_port()}"
    mlflow.set_tracking_uri(address)
    try:
        sentence = f"^MLflow at {address} cannot be reached: the connection was refused"
        with pytest.raises(ServerUnavailable, match=sentence), tracking.failing("0123456789abcdef"):
            tracking.log_metrics("0123456789abcdef", {"val/loss": 1.0})
    finally:
        mlflow.set_tracking_uri(None)


def test_what_fails_for_another_reason_is_not_blamed_on_the_server() -> None:
    import requests

    assert server.unavailable(requests.ConnectionError("a bucket's"), "http://mlflow") is None
    assert server.unavailable(MlflowException("no such run"), "http://mlflow") is None


# Databases


def test_postgresql_means_psycopg_3() -> None:
    import sqlalchemy

    assert sqlalchemy.make_url("postgresql://host/database").get_dialect().driver == "psycopg"


def test_a_database_that_answers_is_used(database: str) -> None:
    check_database(f"{database}/studies", variable="FASHION_STUDIES")
    server.check(f"{database.replace('fashion@', 'guarded:right@')}/studies")


@pytest.mark.parametrize(
    ("user", "name", "message"),
    [
        ("fashion", "missing", 'database "missing" does not exist; create it with `createdb --host 127.0.0.1 --port '),
        (
            "guarded:wrong",
            "studies",
            'password authentication failed for user "guarded"; check user and password in FASH',
        ),
        ("nobody:x", "studies", 'role "nobody" does not exist; check user and password in FASHION_STUDIES'),
    ],
)
def test_a_database_that_refuses_says_why(database: str, user: str, name: str, message: str) -> None:
    address = f"{database.replace('fashion@', f'{user}@')}/{name}"
    with pytest.raises(ServerUnavailable) as caught:
        check_database(address, variable="FASHION_STUDIES")
    assert str(caught.value).startswith(f"{without_password(address)} cannot be used: {message}")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://me:secret@no.invalid/x", "postgresql://me:***@no.invalid/x cannot be used: "),
        (
            "postgresql://me:secret@127.0.0.1:1/x",
            "Connection refused; check FASHION_STUDIES, and that its server is up",
        ),
        (
            "postgresql://me:secret@host:port/x",
            "postgresql://me:***@host:port/x is not the address of a database: set FA",
        ),
        (
            "mongodb://me:secret@host/x",
            "'mongodb' is no database that is known here; set FASHION_STUDIES to postgresql:",
        ),
        ("mysql://me:secret@host/x", "its driver is missing (No module named 'MySQLdb'): install it"),
    ],
)
def test_a_database_that_cannot_be_reached_says_why_without_its_password(address: str, message: str) -> None:
    with pytest.raises(ServerUnavailable) as caught:
        check_database(address, variable="FASHION_STUDIES")
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fault("hanging PostgreSQL")
def test_a_database_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_SERVER_SECONDS", "2")
    with hanging() as port, pytest.raises(ServerUnavailable, match="timeout expired; check FASHION_STUDIES"):
        check_database(f"postgresql://me@127.0.0.1:{port}/x", variable="FASHION_STUDIES")


def test_without_psycopg_the_extra_is_named(tmp_path: Path) -> None:
    """In a process that does not find it."""
    script = """
import sys
sys.modules["psycopg"] = None
from fashion.storage.servers import check_database
check_database("postgresql://me:secret@host/x", variable="FASHION_STUDIES")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr.strip().endswith(
        "//me:***@host/x cannot be used: the package psycopg is missing: install the extra `fashion[postgres]`"
    )


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:p@ss/w:rd@host/x", "postgresql://me:***@ss/w:rd@host/x"),  # unescaped: `/` ends the host
        (
            "postgresql+psycopg://me:secret@host:5432/x?sslmode=require",
            "postgresql+psycopg://me:***@host:5432/x?sslmode=require",
        ),
        ("https://me:@host/a@b:c@d", "https://me:***@host/a@b:c@d"),
        ("https://me@host", "https://me@host"),
        ("sqlite:////var/a:b@c.db", "sqlite:////var/a:b@c.db"),
        ("/folder/journal.log", "/folder/journal.log"),
    ],
)
def test_passwords_are_not_shown(address: str, shown: str) -> None:
    assert without_password(address) == shown


# Commands


@pytest.mark.parametrize("words", [["registry", "list"], ["ui"], ["registry", "rollback"]])
def test_a_command_says_it_in_one_sentence(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://me:secret@127.0.0.1:{free_port()}"
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: MLflow at {without_password(address)} cannot be reached: the connection was refused"
    )
    assert error.count("\n") == 1


def test_status_shows_it_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    assert main(["status"]) == 1
    output = " ".join(capsys.readouterr().out.split())
    assert "champion cannot be read: MLflow at http://127.0.0.1:" in output
    assert "predictions none yet" in output


def test_the_ui_of_a_server_is_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    with answering(200, '{"experiments": []}') as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert main(["ui"]) == 0
    assert capsys.readouterr().out == f"the MLflow UI is on {address}, the server that MLFLOW_TRACKING_URI names\n"
