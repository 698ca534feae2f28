"""How many labels a service accepts from one client in a minute, as single ones and as tables."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.log_rows import record

from bentos.classifier.app import App
from bentos.classifier.deployment import Deployment
from bentos.classifier.worker import Worker
from bentos.web.request_metrics import Identity
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import current_home
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import ModelId

Open = Callable[..., TestClient]
PREDICTION = "01977a2e-7d3f-7b10-8f6e-0123456789ab"
"""The one in the log."""


@pytest.fixture
def opened(tiny_package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open a service with one logged prediction, under overrides of its configuration."""
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    workers: list[Worker] = []

    def opened(*overrides: str) -> TestClient:
        settings = load_as(ServeConfig, compose(list(overrides), root=ServeConfig.root)).serve
        model = ModelId.of("fashion", 1, tiny_package.digest)
        deployment = Deployment(settings, {"name": model.name, "version": "1"}, None)
        identity = Identity("fashion-classifier", "1", "Classifier", None)
        keys = {"FASHION_FEEDBACK_KEYS": "f1,f2"}
        assert tiny_package.folder is not None
        worker = Worker(
            deployment,
            current_home(),
            keys,
            model=tiny_package.folder,
            shadow=None,
            folder=tmp_path,
            identity=identity,
        )
        workers.append(worker)
        worker.log.append([record(prediction_id=PREDICTION, model_name=model.name, probabilities=(0.1,) * 10)])
        return TestClient(App(None, lambda: worker))  # type: ignore[arg-type]

    yield opened
    for worker in workers:
        worker.close()


def say(client: TestClient, key: str = "f1") -> Any:
    return client.post("/feedback", json={"prediction_id": PREDICTION, "true_label": 1}, headers={"x-api-key": key})


def send_table(client: TestClient, rows: int, key: str = "f1") -> Any:
    table = "prediction_id,true_label\n" + f"{PREDICTION},1\n" * rows
    return client.post("/feedback", content=table, headers={"x-api-key": key, "content-type": "text/csv"})


def test_labels_of_one_key_are_limited_whether_they_come_singly_or_as_a_table(opened: Open) -> None:
    client = opened("serve.limits.feedback_per_minute=20")
    assert send_table(client, 15).json()["accepted"] == 15
    assert [say(client).status_code for _ in range(5)] == [201] * 5
    refused = say(client)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
    assert refused.json()["error"]["message"] == "more than 20 labels a minute"
    assert 3 <= int(refused.headers["retry-after"]) <= 4
    assert send_table(client, 2).status_code == 429
    assert say(client, "f2").status_code == 201  # keys do not share


def test_a_table_of_more_than_a_minute_is_accepted_once_and_counted_whole(opened: Open) -> None:
    client = opened("serve.limits.feedback_per_minute=20")
    assert send_table(client, 100).json()["accepted"] == 100
    assert 4 * 60 < int(say(client).headers["retry-after"]) < 5 * 60


def test_a_refused_table_stores_nothing(opened: Open) -> None:
    client = opened("serve.limits.feedback_per_minute=20")
    assert say(client).status_code == 201
    assert send_table(client, 20).status_code == 429
    with PredictionLog(current_home().predictions) as log:
        assert len(log.get(PREDICTION).feedback) == 1


def test_rows_count_as_requests_too(opened: Open) -> None:
    client = opened("serve.limits.feedback_per_minute=null", "serve.limits.requests_per_minute=20")
    assert send_table(client, 15).json()["accepted"] == 15
    refused = send_table(client, 15)
    assert (refused.status_code, refused.json()["error"]["message"]) == (429, "more than 20 requests a minute")


@pytest.mark.parametrize(
    ("overrides", "statuses"), [([], [200, 429]), (["serve.limits.feedback_per_minute=null"], [200, 200])]
)
def test_by_default_a_thousand_labels_a_minute_are_accepted_and_null_switches_the_limit_off(
    opened: Open, overrides: list[str], statuses: list[int]
) -> None:
    client = opened(*overrides)
    assert [send_table(client, 1000).status_code for _ in range(2)] == statuses
