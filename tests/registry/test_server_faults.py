"""MLflow's server in trouble, in each call that flows and commands make: one sentence, in the time that it has."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from support.served import free_port
from support.web import QuietHandler, serving

from fashion.home import current_home
from fashion.registry import open_runs, server, tracking, versions

RUN = "a" * 32
ANSWERS = {
    "500": (500, b"<h1>Internal error</h1>"),
    "500 in JSON": (500, b'{"error_code": "INTERNAL_ERROR", "message": "the database is locked"}'),
    "429": (429, b"slow down"),
    "401": (401, b""),
    "403 in JSON": (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}'),
    "HTML": (200, b"<html>Sign in</html>"),
}
REASONS = {
    "dead": "cannot be reached: the connection was refused; check MLFLOW_TRACKING_URI",
    "hanging": "cannot be reached: it does not answer in time; check MLFLOW_TRACKING_URI",
    "500": "cannot be used: it answers 500; look at the server's log",
    "500 in JSON": "cannot be used: it answers 500; look at the server's log",
    "429": "cannot be used: it answers 429; it has too many requests: try again later",
    "401": "cannot be used: it answers 401; set MLFLOW_TRACKING_USERNAME and",
    "403 in JSON": "cannot be used: it answers 403; give this user access",
    "HTML": "cannot be used: it answers what is not MLflow's; check MLFLOW_TRACKING_URI",
}
CALLS: dict[str, Callable[[Path], object]] = {
    "open an experiment": lambda _: tracking.get_or_create_experiment(current_home(), "x"),
    "start a run": lambda _: tracking.start_run("1", "x", {"metaflow_run_id": "TrainFlow/1"}),
    "log metrics": lambda _: tracking.log_metrics(RUN, {"val/loss": 1.0}),
    "log files": lambda _: tracking.log_files(RUN, {"a.txt": b""}),
    "end a run": lambda _: tracking.finish_run(RUN),
    "end expired runs": lambda _: open_runs.end_expired("1"),
    "list versions": lambda _: versions.list_versions(),
    "fetch artifacts": lambda folder: mlflow.artifacts.download_artifacts(
        f"mlflow-artifacts:/1/{RUN}/artifacts", dst_path=str(folder)
    ),
}


@contextlib.contextmanager
def in_trouble(kind: str) -> Iterator[str]:
    if kind == "dead":
        yield f"http://127.0.0.1:{free_port()}"
    elif kind == "hanging":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    else:

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.read_body()
                self.respond(*ANSWERS[kind])

            do_POST = do_PATCH = do_PUT = do_DELETE = do_GET

        with serving(Handler) as url:
            yield url


@pytest.mark.slow
@pytest.mark.fault("MLflow's server is dead, hangs, or answers 500, 429, 401, 403 or HTML")
@pytest.mark.parametrize("kind", REASONS)
def test_every_call_of_mlflow_names_its_server_and_what_to_do(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with in_trouble(kind) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        mlflow.set_tracking_uri(address)
        try:
            for name, call in CALLS.items():
                started = time.monotonic()
                with pytest.raises(Exception) as caught:  # noqa: PT011  # of several libraries
                    call(tmp_path)
                assert time.monotonic() - started < 10, name
                sentence = str(server.unavailable(caught.value, address))
                assert sentence.startswith(f"MLflow at {address} {REASONS[kind]}"), (name, caught.value)
                assert "\n" not in sentence
        finally:
            mlflow.set_tracking_uri(None)


@pytest.mark.fault("a bucket of MLflow's artifacts is away")
def test_a_bucket_that_clients_use_themselves_is_named() -> None:
    import requests
    from mlflow.exceptions import MlflowException

    failed = MlflowException(
        "The following failures occurred while uploading one or more artifacts to gs://team/mlflow/1: {'a': 'refused'}"
    )
    for error in (failed, requests.ConnectionError("refused")):
        sentence = str(server.artifacts_unavailable(error))
        assert sentence.startswith("MLflow's artifacts in ")
        assert "refused" in sentence
    assert server.artifacts_unavailable(MlflowException("no such run")) is None
    assert server.artifacts_unavailable(ValueError("x")) is None
