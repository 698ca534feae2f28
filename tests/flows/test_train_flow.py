"""The flow as a person runs it: once from nothing, once with a worse challenger, once on pictures of their own with its
training killed.
"""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from PIL import Image
from support.machine import FLOW_OVERRIDES, Machine

from fashion.config.compose import as_dict, compose
from fashion.config.names import MODEL_NAME
from fashion.config.schema import DataConfig
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY
from fashion.model.package import MODEL, Package
from fashion.model.predictor import Predictor
from fashion.registry import champions, versions
from fashion.state import relocation

TINTS = {"red": (1.0, 0.3, 0.3), "green": (0.3, 1.0, 0.3), "blue": (0.4, 0.4, 1.0)}


@pytest.fixture(scope="session")
def mlflow_run(machine: Machine, first: Any) -> Any:
    """The MLflow run of the first flow."""
    return machine.connect().get_run(first.data.mlflow_run_id)


def test_every_step_runs_and_the_flow_succeeds(first: Any) -> None:
    assert first.successful
    steps = {step.id for step in first}
    assert steps == {"start", "plan", "tune", "collect", "train", "evaluate", "register", "end"}
    assert len(list(first["tune"])) == 2
    assert first["plan"].task.data.workers == [0, 1]
    assert first["end"].task.data.outcome.startswith("version 1 is the champion: there is no champion yet; test: ")


@pytest.mark.fault("the home was moved")
def test_runs_of_a_moved_home_are_read_where_they_are_now(machine: Machine, first: Any, tmp_path: Path) -> None:
    import metaflow

    outcome = first["end"].task.data.outcome
    moved = tmp_path / "moved"
    shutil.copytree(machine.root / "metaflow", moved / "metaflow")
    shutil.copy(machine.root / "home.json", moved)
    relocation.settle(moved)
    metadata = list((moved / "metaflow").rglob("_meta/*.json"))
    assert [path for path in metadata if str(machine.root) in path.read_text()] == []
    metaflow.metadata(f"local@{moved / 'metaflow'}")
    metaflow.namespace(None)
    try:
        run = metaflow.Run(first.pathspec)
        assert run.successful
        assert run["end"].task.data.outcome == outcome
        assert "version 1 is the champion" in run["end"].task.stdout
    finally:
        metaflow.metadata(f"local@{machine.root / 'metaflow'}")


def test_start_records_which_data_and_which_code(first: Any, small_dataset: Dataset) -> None:
    data = first["start"].task.data
    assert data.data_digest == small_dataset.digest
    assert data.git_commit
    assert data.study == f"TrainFlow-{first.id}"


def test_collect_logs_every_trial_once_under_the_parent(machine: Machine, first: Any) -> None:
    client = machine.connect()
    parent = first.data.mlflow_run_id
    children = client.search_runs([first.data.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    assert sorted(int(child.data.tags["trial.number"]) for child in children) == [0, 1, 2]
    assert all(child.info.status == "FINISHED" for child in children)
    assert all(len(child.data.tags["data.digest"]) == 64 for child in children)
    assert all(child.inputs.dataset_inputs[0].dataset.name == "fashion-mnist training" for child in children)
    assert all("objective" in child.data.metrics for child in children if child.data.tags["trial.state"] == "complete")
    names = {entry.path for entry in client.list_artifacts(parent, "tuning")}
    assert {"tuning/study.html", "tuning/optimization_history.png", "tuning/slice.png"} <= names


def test_the_chosen_values_are_trained_with(first: Any) -> None:
    chosen, used = first["collect"].task.data.params, first.data.training | {"architecture": first.data.architecture}
    configured = as_dict(load_train_config(compose(FLOW_OVERRIDES)))
    for name in ("optimizer.learning_rate", "optimizer.head_learning_rate", "training.label_smoothing"):
        group, key = name.split(".")
        value = chosen.get(name, configured[group][key])  # the configured ones stay where no trial was clearly better
        assert used["config" if group == "training" else group][key] == pytest.approx(value), name


def test_train_logs_curves_saliency_and_system_metrics(machine: Machine, first: Any, mlflow_run: Any) -> None:
    client = machine.connect()
    for name in ("train/loss", "val/loss", "val/accuracy"):
        logged = client.get_metric_history(mlflow_run.info.run_id, name)
        assert [metric.step for metric in logged] == [1, 2]
    assert [epoch["epoch"] for epoch in first.data.history] == [1, 2]
    images = [entry.path for entry in client.list_artifacts(mlflow_run.info.run_id, "images")]
    steps = {int(found[1]) for path in images if (found := re.search(r"saliency\Wstep\W(\d+)\W", path))}
    assert steps == {1, 2}, images
    assert any(name.startswith("system/") for name in mlflow_run.data.metrics)


def test_train_exports_what_torch_computes(first: Any) -> None:
    exported = first["train"].task.data.exported
    assert exported["rows"] == 1000
    assert exported["label_agreement"] == 1
    assert exported["max_difference"] < 1e-3


def test_evaluate_measures_accuracy_with_an_interval(first: Any, mlflow_run: Any) -> None:
    accuracy = first.data.metrics["test/accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["value"] > 0.5  # of 10 classes, after two epochs of 1,000 images
    assert mlflow_run.data.metrics["test/accuracy"] == pytest.approx(accuracy["value"])
    assert {"test/accuracy_deduplicated", "test/ece", "latency_ms/p50"} <= set(mlflow_run.data.metrics)


def test_what_was_found_is_kept_in_mlflow(machine: Machine, first: Any, mlflow_run: Any) -> None:
    client = machine.connect()
    names = {
        entry.path.removeprefix("evaluation/") for entry in client.list_artifacts(mlflow_run.info.run_id, "evaluation")
    }
    pictures = {"confusion.png", "per_class.png", "reliability.png", "mistakes.png"}
    assert names == pictures | {"per_class.json", "metrics.json"}
    artifacts = f"runs:/{mlflow_run.info.run_id}"
    assert mlflow.artifacts.load_dict(f"{artifacts}/verdict.json") == json.loads(json.dumps(first.data.verdict))
    table = mlflow.artifacts.load_dict(f"{artifacts}/evaluation/metrics.json")
    row = dict(zip(table["columns"], next(each for each in table["data"] if each[0] == "test/accuracy"), strict=True))
    accuracy = first.data.metrics["test/accuracy"]
    assert (row["low"], row["high"]) == pytest.approx((accuracy["low"], accuracy["high"]))


def test_the_mlflow_run_says_which_data_and_parameters(mlflow_run: Any, small_dataset: Dataset) -> None:
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.inputs.dataset_inputs[0].dataset.digest == small_dataset.digest[:36]
    assert mlflow_run.data.tags["data.digest"] == small_dataset.digest
    assert mlflow_run.data.params["training.num_epochs"] == "2"


def test_the_first_version_becomes_champion_with_its_lineage(machine: Machine, first: Any) -> None:
    from fashion.registry import versions

    machine.connect()
    champion = versions.get("1")
    assert "summary" in champion.tags
    assert champion.tags["metaflow_run_id"] == f"TrainFlow/{first.id}"
    assert re.search(r"^there is no champion yet; test: .*; guessing is right in", champion.tags["promoted.reason"])
    assert len(champion.tags["package.digest"]) == 64
    assert first.data.promoted
    assert "version 1 is the champion" in machine.output


def test_the_registered_package_predicts_what_was_evaluated(
    machine: Machine, first: Any, small_dataset: Dataset, tmp_path: Path
) -> None:
    from fashion.model.predictor import Predictor
    from fashion.registry import versions

    machine.connect()
    package = versions.fetch(versions.get("1"), tmp_path)
    assert package.data["digest"] == small_dataset.digest
    assert package.lineage["metaflow_run_id"] == f"TrainFlow/{first.id}"
    right = Predictor(package).predict(small_dataset.test.images).labels == small_dataset.test.labels
    assert right.mean() == pytest.approx(package.metrics["test/accuracy"].value)


@pytest.mark.parametrize(
    ("step", "name", "shown"),
    [
        ("start", "data", "Samples of each class"),
        ("collect", "study", "Optimization history"),
        ("train", "training", "Saliency after epoch 2"),
        ("train", "training", '"of": "val/loss"'),
        ("evaluate", "evaluation", "Worst mistakes"),
        ("evaluate", "evaluation", "Ankle boot"),
        ("register", "verdict", "there is no champion yet"),
    ],
)
def test_cards_show_the_step(machine: Machine, first: Any, step: str, name: str, shown: str) -> None:
    html = machine.card(first, step, name)
    assert 'class="metaflow_card"' in html or "metaflow" in html.lower()
    assert shown in _card_texts(html)


@pytest.mark.fault("a version has to be made again")
def test_a_version_trained_again_from_its_records_has_equal_weights(machine: Machine, first: Any) -> None:
    done = machine.python("-m", "fashion", "registry", "reproduce", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    *_, last = done.stdout.splitlines()
    assert last.startswith("equal: the weights are those of version 1, bit for bit (sha256 ")
    assert "differs: data" not in done.stdout


def test_progress_is_printed(machine: Machine) -> None:
    assert "epoch 2/2: train/loss" in machine.output
    assert "8/8" in machine.output


def test_nothing_is_written_outside_the_home(machine: Machine) -> None:
    assert not Path("/.metaflow").exists()
    assert not Path("/mlruns").exists()
    assert {"metaflow", "mlflow.db", "mlflow-artifacts", "optuna", "checkpoints"} <= {
        path.name for path in machine.root.iterdir()
    }


def test_a_worse_challenger_is_kept_and_refused_with_its_reasons(challenged: Machine) -> None:
    second = challenged.challenger
    assert "version 2 was refused" in challenged.challenger_output
    assert second.number == 2
    assert second.aliases == ("challenger",)
    assert "McNemar" in second.tags["refused.reason"]
    run = next(run for run in challenged.runs() if run.data.mlflow_run_id == second.mlflow_run_id)
    assert "tune" not in {step.id for step in run}
    verdict = run.data.verdict
    assert not verdict["promoted"]
    assert {check["passed"] for check in verdict["checks"]} == {True, False}
    for check in verdict["checks"]:
        said = "passed" if check["passed"] else "failed"
        assert second.tags[f"check/{check['name']}"].startswith(f"{said}: {check['value']:.6g}, bound ")


@pytest.fixture(scope="session")
def own(small_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """A machine that trained on colour pictures of a person's own and was killed once; and what the flow said."""
    folder = tmp_path_factory.mktemp("own")
    machine = Machine(folder / "var")
    (machine.root / "data").unlink()
    for split, images in (("train", small_dataset.train.images[:900]), ("test", small_dataset.test.images[:300])):
        for index, image in enumerate(images):
            name = list(TINTS)[index % len(TINTS)]
            path = folder / "pictures" / split / name / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image[2:26, 2:26, None] * np.array(TINTS[name])).astype(np.uint8)).save(path)
    data = ["name=own", f"class_names=[{','.join(TINTS)}]", "channels=3", "size=24", "preparation=whole_picture"]
    words = [f"data.{word}" for word in (*data, f"manifest={folder / 'own.manifest.json'}", "sources=[]")]
    added = machine.python("-m", "fashion", "data", "add", str(folder / "pictures"), *words)
    assert added.returncode == 0, added.stderr
    process = machine.start("run", *words, "training.num_epochs=6", "tuning=off")
    deadline = time.monotonic() + 300
    while not list(machine.root.glob("checkpoints/TrainFlow/*/checkpoint.pt")):
        assert time.monotonic() < deadline, "no checkpoint appeared"
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    os.kill(_task(process.pid, "train"), signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return machine, said


@pytest.mark.fault("kill -9 of TrainFlow's train step")
def test_a_killed_training_goes_on_from_its_checkpoint(own: tuple[Machine, str]) -> None:
    machine, said = own
    (run,) = machine.runs()
    assert [epoch["epoch"] for epoch in run.data.history] == [1, 2, 3, 4, 5, 6]
    assert run["train"].task.current_attempt == 1
    assert said.count("epoch 1/6:") == 1  # the second attempt did not begin anew
    assert re.search(r"continuing after epoch \d/6", said)


def test_own_pictures_are_a_matter_of_the_data_config(own: tuple[Machine, str], tmp_path: Path) -> None:
    machine, _ = own
    machine.connect()
    champion = versions.champion()
    assert champion is not None
    made = versions.fetch(champion, tmp_path)
    assert (made.class_names, made.channels, made.size) == (tuple(TINTS), 3, 24)
    assert made.preparation == "whole_picture"
    assert made.metrics["test/accuracy"].value > 0.9
    plain = np.array(list(TINTS.values()))[:, None, None] * np.full((1, 24, 24, 1), 200)
    assert Predictor(made).predict(plain.astype(np.uint8)).labels.tolist() == [0, 1, 2]


def test_a_service_of_own_pictures_shows_no_others(own: tuple[Machine, str], data_config: DataConfig) -> None:
    machine, _ = own
    others = machine.root / "data" / data_config.name
    others.symlink_to(REPOSITORY / "var" / "data" / data_config.name)
    said = machine.flow("run", name="deploy_flow")
    assert "no gallery: the model was not trained on fashion-mnist; choose its data set with data=NAME" in said
    assert {file.read_text() for file in machine.root.rglob("gallery.json")} == {"[]"}


def test_a_run_is_resumed_where_one_says(own: tuple[Machine, str]) -> None:
    machine, _ = own
    (before,) = machine.runs()
    machine.flow("resume", "register", "--origin-run-id", before.id)
    resumed = machine.runs()[-1]
    assert resumed.id != before.id
    assert resumed.data.history == before.data.history  # not trained again
    assert resumed.data.version == before.data.version == 1  # and what was registered is not registered again
    machine.connect()
    assert len(versions.list_versions()) == 1


@pytest.mark.fault("the champion's files are damaged before a training")
def test_a_damaged_champion_is_told_before_anything_is_trained(
    tiny_package: Package, migrated_database: Path, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "var")
    shutil.copy(migrated_database, machine.root / "mlflow.db")
    assert tiny_package.folder is not None
    client = machine.connect()
    client.create_registered_model(MODEL_NAME)
    for name in ("first", "second"):
        files = shutil.copytree(tiny_package.folder, tmp_path / name)
        version = client.create_model_version(MODEL_NAME, str(files)).version
        champions.promote(versions.get(str(version)), reason=name)
    (tmp_path / "second" / MODEL).unlink()
    process = machine.start("run", *FLOW_OVERRIDES, "tuning=off")
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "Traceback" not in said
    assert re.search(
        rf"error: version 2, stored at .*{MODEL} is missing; no model can be compared with it: restore its files, go "
        "back to version 1 with `fashion registry rollback`, or train with gate.champion=ignore",
        said,
    )
    assert client.search_experiments(filter_string="name = 'fashion'") == []  # no MLflow run either
    done = machine.python("-m", "fashion", "registry", "rollback", "--reason", "its files are gone")
    assert (done.returncode, done.stdout) == (0, "champion: version 1\n")


def _task(launcher: int, step: str) -> int:
    """Process id of a running step."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            if parent == launcher and b"step" in words and step.encode() in words:
                return int(entry.name)
    raise AssertionError(f"no task of {step} runs")


def _card_texts(html: str) -> str:
    """A card's content: Metaflow stores it as base64 JSON within the page."""
    import base64

    parts = [html]
    for encoded in re.findall(r'"([A-Za-z0-9+/=]{200,})"', html):
        try:
            parts.append(base64.b64decode(encoded).decode())
        except ValueError:
            continue
    return "\n".join(parts)
