"""MLflow's server in trouble, in each call that flows and commands make: one sentence, in the time that it has."""

import contextlib
import io
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import PIL.Image
import pytest
from support import bucket, postgres
from support.proxy import Proxy, between
from support.served import free_port
from support.web import QuietHandler, serving

from fashion.home import current_home
from fashion.registry import artifacts, open_runs, sender, server, tracking, versions

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


@contextlib.contextmanager
def run_on(monkeypatch: pytest.MonkeyPatch, home: Path, **addresses: str) -> Iterator[str]:
    """A run of MLflow in stores of this process's own."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("FASHION_HOME", str(home))
    for variable, address in addresses.items():
        monkeypatch.setenv(variable, address)
    try:
        tracking.connect(current_home())
        experiment = tracking.get_or_create_experiment(current_home(), "x")
        yield tracking.start_run(experiment, "x", {"metaflow_run_id": "TrainFlow/1"})
    finally:
        mlflow.set_tracking_uri(None)


@dataclass(frozen=True)
class Row:
    name: str


PNG = io.BytesIO()
PIL.Image.new("RGB", (2, 2)).save(PNG, "png")
ON_ARTIFACTS: dict[str, Callable[[str], object]] = {
    "log files": lambda run: tracking.log_files(run, {"a.txt": b"a"}),
    "read a file": lambda run: tracking.read_file(run, "a.txt"),
    "log a table": lambda run: tracking.log_table(run, "table.json", [Row("a")]),
    "log a picture": lambda run: tracking.log_image(run, "grid", PNG.getvalue(), step=0),
    "look at a version": lambda _: artifacts.check_model("gs://team/mlflow/1/models/m-1/artifacts"),
    "open an experiment": lambda _: tracking.get_or_create_experiment(current_home(), "x"),
}


@pytest.mark.slow
@pytest.mark.fault("a bucket of MLflow's artifacts is dead or hangs")
@pytest.mark.parametrize("break_off", [Proxy.cut, Proxy.stall], ids=["dead", "hanging"])
def test_a_bucket_that_clients_use_themselves_is_given_up_in_time(
    break_off: Callable[[Proxy], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with bucket.serve("team") as emulator, between(emulator.removeprefix("http://")) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{proxy.address}")
        with run_on(monkeypatch, tmp_path, FASHION_ARTIFACTS="gs://team/mlflow") as run_id:
            for call in ON_ARTIFACTS.values():
                call(run_id)
            break_off(proxy)
            for name, call in ON_ARTIFACTS.items():
                started = time.monotonic()
                with pytest.raises(artifacts.ArtifactsUnavailable) as caught:
                    call(run_id)
                assert time.monotonic() - started < 15, name
                sentence = str(caught.value)
                assert sentence.startswith("MLflow's artifacts cannot be read or written: gs://team/mlflow/"), name
                assert sentence.endswith("; check the bucket and its credentials; then `resume`")
                assert server.explain(caught.value) is caught.value
                monkeypatch.setenv("FASHION_SERVER_SECONDS", "1")  # what is said does not depend on it
            proxy.resume()
            assert tracking.read_file(run_id, "a.txt") == b"a"


@pytest.mark.slow
@pytest.mark.fault("PostgreSQL hangs under MLflow")
def test_a_database_that_hangs_under_mlflow_is_given_up_and_used_again_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FASHION_SERVER_SECONDS", "2")
    with postgres.serve() as database, between(database.partition("@")[2]) as proxy:
        postgres.create_database(database, "mlflow")
        address = f"postgresql://fashion@{proxy.address}/mlflow"
        with run_on(monkeypatch, tmp_path, MLFLOW_TRACKING_URI=address) as run_id:
            calls: list[Callable[[], object]] = [
                lambda: tracking.log_metrics(run_id, {"val/loss": 1.0}, step=1),
                versions.list_versions,
                lambda: tracking.log_tags(run_id, {"a": "b"}),
            ]
            for call in calls:
                call()
            proxy.stall()
            for call in calls:
                started = time.monotonic()
                with pytest.raises(Exception) as caught:  # noqa: PT011  # of several libraries
                    call()
                assert time.monotonic() - started < 10
                said = str(server.explain(caught.value))
                assert said.startswith(f"MLflow at {address} cannot be used: "), caught.value
                assert "it does not answer in time" in said or "timeout expired" in said
            proxy.resume()
            tracking.log_metrics(run_id, {"val/loss": 0.5}, step=2)
            assert sender.logged_steps(run_id, "val/loss") >= {2}


@pytest.mark.fault("a bucket of MLflow's artifacts fails while it is used")
def test_a_bucket_that_fails_in_a_call_is_named() -> None:
    import requests
    from mlflow.exceptions import MlflowException

    failed = MlflowException(
        "The following failures occurred while uploading one or more artifacts to gs://team/mlflow/1: {'a': 'refused'}"
    )
    for error in (failed, requests.ConnectionError("refused")):
        sentence = str(artifacts.unavailable(error))
        assert sentence.startswith("MLflow's artifacts in ")
        assert "refused" in sentence
    assert artifacts.unavailable(MlflowException("no such run")) is None
    assert artifacts.unavailable(ValueError("x")) is None
