"""Use of CPU and memory in MLflow, read back from real servers, one of which goes away for a while."""

import time
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from support import mlflow_server
from support.proxy import between

from fashion.home import Home
from fashion.registry import system_metrics, tracking

CPU = "system/cpu_utilization_percentage"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


def steps(run_id: str) -> list[int]:
    return [metric.step for metric in MlflowClient().get_metric_history(run_id, CPU)]


def until_more_than(number: int, run_id: str) -> None:
    deadline = time.monotonic() + 60
    while len(steps(run_id)) <= number:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_task_that_is_retried_measures_on(mlflow_home: Home) -> None:
    run_id = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "tests"), "run", {})
    for wanted in (0, 1):
        with system_metrics.logged(run_id):
            until_more_than(wanted, run_id)
    assert len(steps(run_id)) == len(set(steps(run_id))) >= 2
    assert MlflowClient().get_run(run_id).info.status == "RUNNING"


@pytest.mark.slow
@pytest.mark.fault("MLflow's server goes away while system metrics are measured")
def test_a_server_that_comes_back_gets_system_metrics_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        mlflow_server.serve(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path)) as address,
        between(address.removeprefix("http://")) as proxy,
    ):
        mlflow.set_tracking_uri(f"http://{proxy.address}")
        try:
            run_id = MlflowClient().create_run("0").info.run_id
            with system_metrics.logged(run_id):
                until_more_than(0, run_id)
                proxy.cut()
                time.sleep(1)
                proxy.resume()
                until_more_than(len(steps(run_id)) + 1, run_id)
            assert len(steps(run_id)) == len(set(steps(run_id)))
        finally:
            mlflow.set_tracking_uri(None)
    assert "mlflow" not in "".join(capfd.readouterr())
