"""What is said of a real training while it runs: MLflow, a terminal, a chart."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.home import Home
from fashion.registry import tracking
from fashion.storage.folder import FolderStore
from fashion.training import progress, recipe
from fashion.training.fit import FitResult
from fashion.training.progress import Watch

EPOCHS, STEPS = 2, 4


@dataclass
class Paper:
    """A chart that remembers."""

    steps: list[tuple[int, int]] = field(default_factory=list)
    epochs: list[tuple[int, dict[str, float], dict[str, float]]] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)

    def step(self, done: int, total: int, loss: float) -> None:
        assert loss > 0
        self.steps.append((done, total))

    def epoch(self, number: int, losses: Mapping[str, float], accuracies: Mapping[str, float]) -> None:
        self.epochs.append((number, dict(losses), dict(accuracies)))

    def picture(self, caption: str, png: bytes) -> None:
        self.pictures.append((caption, png))


@dataclass
class Watched:
    run_id: str
    result: FitResult
    chart: Paper
    said: list[str]


@pytest.fixture
def settings() -> TrainConfig:
    words = ["architecture.kwargs.widths=[8,8]", f"training.num_epochs={EPOCHS}", "training.batch_size=50"]
    return load_train_config(compose([*words, "training.min_steps=0"]))


@pytest.fixture
def few(small_dataset: Dataset) -> Dataset:
    train = Split(small_dataset.train.images[:200], small_dataset.train.labels[:200])
    return dataclasses.replace(small_dataset, train=train)


@pytest.fixture
def watched(mlflow_home: Home, few: Dataset, settings: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    run_id = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "tests"), "watched", {})
    chart, said = Paper(), list[str]()
    callbacks = Watch(run_id, few, settings, chart, report=said.append)
    _, result = recipe.train(settings, few, on_epoch=callbacks.epoch, on_step=callbacks.step)
    callbacks.close(FolderStore(mlflow_home.root / "checkpoints"), timeout_s=60)
    return Watched(run_id, result, chart, said)


def test_every_epoch_is_seen_in_mlflow_in_the_terminal_and_in_the_chart(watched: Watched) -> None:
    client, history = MlflowClient(), watched.result.history

    names = {
        "train/loss": "train_loss",
        "val/loss": "val_loss",
        "val/accuracy": "val_accuracy",
        "learning_rate": "learning_rate",
        "cpu_seconds": "cpu_seconds",
    }
    assert set(client.get_run(watched.run_id).data.metrics) == set(names)
    for name, attribute in names.items():
        logged = {metric.step: metric.value for metric in client.get_metric_history(watched.run_id, name)}
        assert logged == pytest.approx({epoch.epoch: getattr(epoch, attribute) for epoch in history})

    images = [file.path for file in client.list_artifacts(watched.run_id, "images") if file.path.endswith(".png")]
    assert len(images) == EPOCHS
    for epoch, path in enumerate(sorted(images), start=1):
        assert re.match(rf"images/saliency.step.{epoch}\D", path)
        picture = Image.open(client.download_artifacts(watched.run_id, path))
        assert min(picture.size) > 200
        assert np.asarray(picture.convert("L")).std() > 10

    for epoch in history:
        assert (
            f"epoch {epoch.epoch}/{EPOCHS}: train/loss {epoch.train_loss:.3f}, val/loss {epoch.val_loss:.3f}, "
            f"val/accuracy {epoch.val_accuracy:.2%}"
        ) in watched.said

    chart = watched.chart
    assert chart.steps == [(step + 1, EPOCHS * STEPS) for step in range(EPOCHS * STEPS)]
    assert [number for number, _, _ in chart.epochs] == [1, 2]
    assert chart.epochs[1][1:] == (
        {"train/loss": history[1].train_loss, "val/loss": history[1].val_loss},
        {"val/accuracy": history[1].val_accuracy},
    )
    assert [caption for caption, _ in chart.pictures] == ["Saliency after epoch 1", "Saliency after epoch 2"]
    assert all(png.startswith(b"\x89PNG") for _, png in chart.pictures)

    lines = [line for line in watched.said if "images/s" in line]
    assert len(lines) == EPOCHS * STEPS
    assert re.fullmatch(r"█{12}░{12} 4/8  loss \d\.\d{3}  [\d,]+ images/s, \d+ s left", lines[3])
    assert re.fullmatch(r"█{24} 8/8  loss \d\.\d{3}  [\d,]+ images/s, 0 s left", lines[-1])


def test_a_line_is_said_now_and_then_and_at_the_end(few: Dataset, settings: TrainConfig) -> None:
    said: list[str] = []
    callbacks = Watch("unused", few, settings, Paper(), report=said.append)
    for step in range(1, 1001):
        callbacks.step(step, 1000, 0.5)
    (line,) = said
    assert " 1,000/1,000  loss 0.500  " in line


@pytest.mark.fault("kill -9 between an epoch's metrics and its checkpoint")
def test_epochs_of_an_interrupted_training_are_drawn_and_logged_once(
    mlflow_home: Home, few: Dataset, settings: TrainConfig, watched: Watched
) -> None:
    chart, said = Paper(), list[str]()
    again = Watch(watched.run_id, few, settings, chart, report=said.append)
    missing = dataclasses.replace(
        watched.result.history[-1], epoch=EPOCHS + 1
    )  # stored, and not logged before the kill
    again.restored([*watched.result.history, missing])
    again.close(FolderStore(mlflow_home.root), timeout_s=60)
    assert chart.epochs[:EPOCHS] == watched.chart.epochs
    assert said == [f"continuing after epoch {EPOCHS + 1}/{EPOCHS}"]
    logged = MlflowClient().get_metric_history(watched.run_id, "val/accuracy")
    assert [metric.step for metric in logged] == list(range(1, EPOCHS + 2))


def test_watching_changes_no_weights(mlflow_home: Home, few: Dataset, settings: TrainConfig, watched: Watched) -> None:
    _, alone = recipe.train(settings, few)
    assert [epoch.val_loss for epoch in watched.result.history] == [epoch.val_loss for epoch in alone.history]
