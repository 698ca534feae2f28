"""What a run holds once it is logged, read back from a real tracking store."""

import io
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from fashion.config.schema import ConfigError
from fashion.home import REPOSITORY, Home, current_home
from fashion.metrics.classification import ClassScore
from fashion.registry import tracking
from fashion.registry.tracking import TrackedTrial

PARENT = "mlflow.parentRunId"


@pytest.fixture
def experiment(mlflow_home: Home) -> str:
    return tracking.get_or_create_experiment(mlflow_home, "fashion")


@pytest.fixture
def run(experiment: str) -> str:
    return tracking.start_run(experiment, "first", {"git_commit": "abc"})


@pytest.fixture
def client(mlflow_home: Home) -> MlflowClient:
    return MlflowClient()


def environment(root: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "FASHION"))}
    return {**kept, "FASHION_HOME": str(root), "PYTHONPATH": str(REPOSITORY)}


# Store and experiment


@pytest.mark.slow
def test_two_processes_that_make_the_database_at_once_both_succeed(tmp_path: Path) -> None:
    script = """
from fashion.home import prepare_environment
from fashion.registry import tracking
home = prepare_environment()
tracking.connect(home)
print(tracking.get_or_create_experiment(home, "fashion"))
"""
    root = tmp_path / "new" / "var"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script], env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    (first, errors), (second, more_errors) = said
    assert first == second
    assert int(first) > 0
    assert errors == more_errors == b""


def test_connecting_again_changes_nothing(mlflow_home: Home, run: str, client: MlflowClient) -> None:
    tracking.connect(mlflow_home)
    assert client.get_run(run).info.run_id == run


@pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)  # looks into the store's files
def test_an_experiment_is_made_once_and_its_artifacts_lie_in_the_home(
    mlflow_home: Home, experiment: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking.get_or_create_experiment(mlflow_home, "fashion") == experiment
    run = tracking.start_run(experiment, "elsewhere", {})
    tracking.log_files(run, {"notes.txt": b"1"})
    assert client.get_experiment(experiment).artifact_location == f"{mlflow_home.artifacts}/fashion"
    (found,) = tmp_path.rglob("notes.txt")
    assert found.is_relative_to(mlflow_home.root)
    assert tracking.get_or_create_experiment(mlflow_home, "another") != experiment


# A run's life


@pytest.mark.fault("an experiment is deleted in MLflow's UI")
def test_an_experiment_that_was_deleted_says_how_to_restore_it(
    mlflow_home: Home, experiment: str, client: MlflowClient
) -> None:
    client.delete_experiment(experiment)
    with pytest.raises(
        ConfigError, match=f"`mlflow experiments restore --experiment-id {experiment}`, or give another"
    ):
        tracking.get_or_create_experiment(mlflow_home, "fashion")


def test_a_run_stays_open_until_it_is_finished(run: str, client: MlflowClient) -> None:
    started = client.get_run(run)
    assert (started.info.run_name, started.info.status) == ("first", "RUNNING")
    assert started.data.tags["git_commit"] == "abc"
    tracking.finish_run(run)
    assert client.get_run(run).info.status == "FINISHED"


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_exception_ends_the_run_and_a_retry_finishes_it(
    error: type[BaseException], status: str, run: str, client: MlflowClient
) -> None:
    with pytest.raises(error, match="^went wrong$"), tracking.failing(run):
        raise error("went wrong")
    assert client.get_run(run).info.status == status
    with tracking.failing(run):
        tracking.log_metrics(run, {"val/loss": 1.0})
    tracking.finish_run(run)
    assert client.get_run(run).info.status == "FINISHED"


def test_a_run_may_be_nested(experiment: str, run: str, client: MlflowClient) -> None:
    child = tracking.start_run(experiment, "child", {}, parent=run)
    assert client.get_run(child).data.tags[PARENT] == run


# What it holds


def test_nested_settings_become_dotted_names() -> None:
    nested = {"training": {"num_epochs": 3, "deep": {"a": None}}, "names": ["a", "b"], "scale": (0.1, 2), "empty": {}}
    assert tracking.flatten(nested) == {
        "training.num_epochs": 3,
        "training.deep.a": None,
        "names": '["a", "b"]',
        "scale": "[0.1, 2]",
    }


def test_settings_are_logged_however_many_and_again(run: str, client: MlflowClient) -> None:
    settings = {"training": {f"setting_{index}": index for index in range(250)}, "name": "convnet"}
    tracking.log_params(run, settings)
    tracking.log_params(run, settings)
    params = client.get_run(run).data.params
    assert len(params) == 251
    assert params["training.setting_249"] == "249"
    assert params["name"] == "convnet"


def test_a_long_setting_is_truncated(run: str, client: MlflowClient) -> None:
    tracking.log_params(run, {"class_names": [f"class {index}" for index in range(2000)]})
    logged = client.get_run(run).data.params["class_names"]
    assert logged.startswith('["class 0", "class 1", ')
    assert len(logged) >= 5000


def test_metrics_have_steps_and_those_that_are_not_finite_are_named(run: str, client: MlflowClient) -> None:
    tracking.log_metrics(run, {"train/loss": 1.5, "val/loss": float("nan"), "val/accuracy": float("inf")}, step=1)
    tracking.log_metrics(run, {"train/loss": 0.5}, step=2)
    found = client.get_run(run).data
    assert found.metrics == {"train/loss": 0.5}
    assert found.tags["not_finite"] == "val/accuracy, val/loss"
    assert [(m.step, m.value) for m in client.get_metric_history(run, "train/loss")] == [(1, 1.5), (2, 0.5)]


def test_a_run_with_finite_metrics_has_no_such_tag(run: str, client: MlflowClient) -> None:
    tracking.log_metrics(run, {"train/loss": 1.5})
    tracking.log_tags(run, {"version": "3"})
    tags = client.get_run(run).data.tags
    assert "not_finite" not in tags
    assert tags["version"] == "3"


def test_a_data_set_is_logged_with_what_it_is_used_for(run: str, client: MlflowClient) -> None:
    tracking.log_dataset(
        run,
        name="fashion-mnist test",
        digest="0123456789abcdef",
        source="configs/data/fashion_mnist.manifest.json",
        images=np.zeros((4, 28, 28), np.uint8),
        labels=np.zeros(4, np.int64),
        context="test",
    )
    (logged,) = client.get_run(run).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("fashion-mnist test", "0123456789abcdef")
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "test")]
    assert "[4, 28, 28]" in logged.dataset.profile


def test_files_are_logged_under_their_paths(run: str, client: MlflowClient) -> None:
    tracking.log_files(run, {"verdict.json": b"{}", "tuning/deep/study.html": b"\x00\xff"})
    assert {entry.path for entry in client.list_artifacts(run)} == {"verdict.json", "tuning"}
    local = mlflow.artifacts.download_artifacts(f"runs:/{run}/tuning/deep/study.html")
    assert Path(local).read_bytes() == b"\x00\xff"


def test_rows_are_logged_as_a_table_once(experiment: str, run: str, client: MlflowClient) -> None:
    rows = [ClassScore("coat", 0.5, 0.25, 1 / 3, 4), ClassScore("bag", 1.0, 1.0, 1.0, 2)]
    for name in ("evaluation/classes.json", "classes.json"):
        for _ in range(2):  # the second time as by a retried task
            tracking.log_table(run, name, rows)
        table = client.load_table(experiment, name, [run])
        assert list(table.columns) == ["name", "precision", "recall", "f1", "support"]
        assert table["name"].tolist() == ["coat", "bag"]
        assert table["f1"].tolist() == pytest.approx([1 / 3, 1.0])


def test_pictures_of_a_series_keep_their_steps(run: str, client: MlflowClient) -> None:
    for step, level in ((1, 10), (2, 200)):
        content = io.BytesIO()
        Image.new("L", (40, 30), level).save(content, "PNG")
        tracking.log_image(run, "saliency", content.getvalue(), step=step)
    names = [entry.path for entry in client.list_artifacts(run, "images") if entry.path.endswith(".png")]
    steps = sorted((int(match[1]), name) for name in names if (match := re.search(r"saliency\Wstep\W(\d+)\W", name)))
    assert [step for step, _ in steps] == [1, 2]
    levels = []
    for _, name in steps:
        with Image.open(mlflow.artifacts.download_artifacts(f"runs:/{run}/{name}")) as picture:
            levels.append(picture.convert("L").getpixel((20, 15)))
    assert levels == [10, 200]


# Trials

TRIALS = [
    TrackedTrial(0, {"optimizer.learning_rate": 0.1}, "complete", 0.9, {50: 0.8, 100: 0.9}, 1_000, 2_000),
    TrackedTrial(1, {"optimizer.learning_rate": 0.2}, "pruned", None, {50: 0.5}, 1_500, 1_800),
    TrackedTrial(2, {}, "fail", None, {}, 1_600, 1_700),
]


def test_trials_are_nested_under_their_parent(experiment: str, run: str, client: MlflowClient) -> None:
    children = [client.get_run(child) for child in tracking.log_trials(experiment, run, TRIALS)]
    assert [child.info.run_name for child in children] == ["trial 0", "trial 1", "trial 2"]
    for child, trial in zip(children, TRIALS, strict=True):
        assert child.data.tags[PARENT] == run
        assert child.data.tags["trial.state"] == trial.state
        assert child.info.status == "FINISHED"
        assert (child.info.start_time, child.info.end_time) == (trial.start_ms, trial.end_ms)
        assert child.data.metrics.get("objective") == trial.value
        assert child.data.params == {name: str(value) for name, value in trial.params.items()}
    curve = client.get_metric_history(children[0].info.run_id, "val/accuracy")
    assert [(metric.step, metric.value) for metric in curve] == [(50, 0.8), (100, 0.9)]


def test_trials_logged_again_are_the_same_runs(experiment: str, run: str, client: MlflowClient) -> None:
    begun = tracking.log_trials(experiment, run, TRIALS[:2])
    again = tracking.log_trials(experiment, run, TRIALS)
    assert again[:2] == begun
    children = client.search_runs([experiment], f"tags.`{PARENT}` = '{run}'")
    assert sorted(child.info.run_name for child in children) == ["trial 0", "trial 1", "trial 2"]
    assert len(client.get_metric_history(begun[0], "val/accuracy")) == 2
    other = tracking.start_run(experiment, "another", {})
    assert not set(tracking.log_trials(experiment, other, TRIALS)) & set(again)


# The UI


@pytest.mark.parametrize("mlflow_home", ["sqlite"], indirect=True)  # looks into the store's files
@pytest.mark.slow
def test_the_ui_opens_on_the_tracking_store(mlflow_home: Home, experiment: str, run: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fashion", "ui", "--port", str(port)]
    with subprocess.Popen(
        command,
        cwd="/",
        env=environment(mlflow_home.root),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            expected = f"MLflow UI of {mlflow_home.tracking_uri} on http://127.0.0.1:{port} (Ctrl-C ends it)\n"
            assert server.stdout.readline() == expected
            deadline = time.monotonic() + 90
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert time.monotonic() < deadline
                assert server.poll() is None
                time.sleep(0.2)
            address = f"http://127.0.0.1:{port}/api/2.0/mlflow/runs/get?run_id={run}"
            with urllib.request.urlopen(address, timeout=30) as reply:
                assert b'"first"' in reply.read()
        finally:
            server.terminate()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def test_the_home_of_a_test_is_not_the_repositorys(mlflow_home: Home) -> None:
    assert mlflow_home.tracking_uri == mlflow.get_tracking_uri() == current_home().tracking_uri
    assert not mlflow_home.root.is_relative_to(REPOSITORY)
