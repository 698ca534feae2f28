"""One process at a time decides: by a file beside a SQLite database, and by tags where MLflow is on a server."""

import os
import threading
import time
from collections.abc import Iterator

import pytest
from mlflow import MlflowClient

from fashion.config.names import MODEL_NAME
from fashion.home import Home
from fashion.registry import exclusive
from fashion.registry.versions import RegistryError

BY_TAG = "tag"


@pytest.fixture(params=["store's own", BY_TAG])
def registry(request: pytest.FixtureRequest, mlflow_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A registered model. Tags exclude on any store: here they are tried on SQLite too, as if it were a server."""
    MlflowClient().create_registered_model(MODEL_NAME)
    if request.param == BY_TAG:
        monkeypatch.setattr(exclusive.sqlite, "path_of", lambda _: None)
    monkeypatch.setattr(exclusive, "POLL_SECONDS", 0.02)
    yield request.param
    assert tags() == {}


def tags() -> dict[str, str]:
    return dict(MlflowClient().get_registered_model(MODEL_NAME).tags)


@pytest.mark.fault("several processes decide at once")
def test_one_at_a_time_decides(registry: str) -> None:
    inside, most = [0], [0]

    def decide() -> None:
        for _ in range(2):
            with exclusive.exclusive(MODEL_NAME) as check:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                check()
                inside[0] -= 1

    threads = [threading.Thread(target=decide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside[0], most[0]) == (0, 1)


def test_an_error_lets_the_next_one_decide(registry: str) -> None:
    with pytest.raises(ZeroDivisionError), exclusive.exclusive(MODEL_NAME):
        raise ZeroDivisionError
    with exclusive.exclusive(MODEL_NAME):
        pass


@pytest.mark.fault("a process dies while it decides on an MLflow server")
def test_the_tag_of_a_process_that_died_is_respected_for_a_while_and_removed(
    mlflow_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exclusive.sqlite, "path_of", lambda _: None)
    monkeypatch.setattr(exclusive, "ABANDONED_SECONDS", 2.5)
    client = MlflowClient()
    client.create_registered_model(MODEL_NAME, {f"{exclusive.TAG}dead": "process 1 on elsewhere"})
    began = time.monotonic()
    with exclusive.exclusive(MODEL_NAME):
        assert time.monotonic() - began > 2.5
        assert list(tags().values()) == [f"process {os.getpid()} on {os.uname().nodename}"]
    assert tags() == {}
    assert capsys.readouterr().err == f"waiting for process 1 on elsewhere, which decides on {MODEL_NAME}\n"


@pytest.mark.fault("a process hangs while it decides")
def test_a_process_that_waits_too_long_or_holds_too_long_ends_with_a_sentence(
    mlflow_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive.sqlite, "path_of", lambda _: None)
    MlflowClient().create_registered_model(MODEL_NAME)
    with exclusive.exclusive(MODEL_NAME) as check:
        monkeypatch.setattr(exclusive, "PATIENCE_SECONDS", 0.1)
        me = f"process {os.getpid()} on {os.uname().nodename}"
        with pytest.raises(RegistryError, match=f"^{me} has been deciding on {MODEL_NAME} for"):
            exclusive.exclusive(MODEL_NAME).__enter__()
        monkeypatch.setattr(exclusive, "HOLD_SECONDS", 0.0)
        with pytest.raises(RegistryError, match="took longer than 0 s, and another process may decide by now"):
            check()
    assert tags() == {}
