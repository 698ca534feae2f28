"""MLflow runs whose owner is gone: ended by the next connection, whatever killed the owner."""

import os

import pytest
from mlflow import MlflowClient

from fashion.home import Home
from fashion.model.package import Package
from fashion.registry import open_runs, tracking, versions

pytestmark = pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)


def status(run_id: str) -> str:
    return str(MlflowClient().get_run(run_id).info.status)


@pytest.fixture
def experiment(mlflow_home: Home) -> str:
    return tracking.get_or_create_experiment(mlflow_home, "tests")


def orphan(home: Home, experiment: str, *, left: str | None = None) -> str:
    """A run, and one nested under it, whose owner was killed; or left them with a status, as its server was away."""
    with open_runs.owning(home) as folder:
        run = tracking.start_run(experiment, "run", {})
        tracking.start_run(experiment, "trial", {}, parent=run)
        open_runs.leave(folder, left or open_runs.KILLED)
        assert status(run) == "RUNNING"
    return run


@pytest.mark.fault("kill -9 of a flow")
@pytest.mark.parametrize("left", [None, "FAILED"])
def test_the_next_connection_ends_the_runs_of_a_flow_that_was_killed(
    left: str | None, mlflow_home: Home, experiment: str
) -> None:
    run = orphan(mlflow_home, experiment, left=left)
    with open_runs.owning(mlflow_home):
        others = tracking.start_run(experiment, "of another flow", {})
        tracking.connect(mlflow_home)
        ended = {each.info.run_name: each.info.status for each in MlflowClient().search_runs([experiment])}
        assert ended == {"run": left or "KILLED", "trial": left or "KILLED", "of another flow": "RUNNING"}
        tracking.continue_run(experiment, run)  # as the run that resumes it does
        assert status(run) == "RUNNING"
        tracking.finish_run(run)
        tracking.finish_run(others)
    tracking.connect(mlflow_home)
    assert status(run) == "FINISHED"
    assert not list((mlflow_home.root / "open-runs").iterdir())


@pytest.mark.fault("a pod is lost for good")
def test_a_run_that_nobody_can_be_at_work_on_is_ended_by_age(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(open_runs.VARIABLE, raising=False)
    fresh = tracking.start_run(experiment, "fresh", {})
    monkeypatch.setattr(open_runs, "LONGEST_STEP_MS", -1)
    lost = tracking.start_run(experiment, "lost", {})
    foreign = str(MlflowClient().create_run(experiment).info.run_id)  # of another program
    open_runs.end_expired(experiment)
    assert [status(run) for run in (fresh, lost, foreign)] == ["RUNNING", "KILLED", "RUNNING"]


@pytest.mark.fault("kill -9 after an MLflow run is created")
def test_a_retried_task_continues_the_run_of_its_metaflow_run(experiment: str) -> None:
    first = tracking.start_run(experiment, "a", {"metaflow_run_id": "TrainFlow/1"})
    tracking.end_run(first, "KILLED")
    assert tracking.start_run(experiment, "a", {"metaflow_run_id": "TrainFlow/1"}) == first
    assert status(first) == "RUNNING"
    assert tracking.start_run(experiment, "b", {"metaflow_run_id": "TrainFlow/2"}) != first


def test_a_password_is_not_noted(mlflow_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "http://me:secret@host")
    with open_runs.owning(mlflow_home) as folder:
        open_runs.tags("7")
        assert (folder / "experiments").read_text() == "7 http://me:***@host\n"
    assert open_runs.VARIABLE not in os.environ


@pytest.mark.fault("kill -9 while a model is logged")
def test_a_run_has_one_model_however_often_it_is_logged(experiment: str, tiny_package: Package) -> None:
    run = tracking.start_run(experiment, "run", {})
    client = MlflowClient()
    client.create_logged_model(experiment, name="model", source_run_id=run)  # and is killed before it has any file
    assert tiny_package.folder is not None
    first = versions.log_package(run, tiny_package.folder)
    assert versions.log_package(run, tiny_package.folder) == first
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run}'")
    assert model.model_uri == first
    assert status(run) == "RUNNING"
