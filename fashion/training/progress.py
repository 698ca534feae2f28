"""Report a training while it runs: lines in a terminal, MLflow, a live chart. Knows nothing of the loop."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset
from fashion.figures import frame, galleries
from fashion.images.transform import normalise
from fashion.registry import tracking
from fashion.training.fit import Epoch
from fashion.training.saliency import saliency

LINE_SECONDS = 10.0
"""Seconds between two lines of progress."""
BAR_WIDTH = 24
"""Characters."""


class Chart(Protocol):
    """Shows curves and pictures while a training runs."""

    def step(self, done: int, total: int, loss: float) -> None: ...

    def epoch(self, number: int, losses: Mapping[str, float], accuracies: Mapping[str, float]) -> None: ...

    def picture(self, caption: str, png: bytes) -> None: ...


class Watch:
    """Callbacks for `fit`: `step`, `epoch` and `restored`."""

    def __init__(
        self, mlflow_run_id: str, dataset: Dataset, config: TrainConfig, chart: Chart, *, report: Callable[[str], None]
    ) -> None:
        """
        Args:
            mlflow_run_id: of the run to log to.
            dataset: its first validation image of each class gets a saliency map.
            config: of the training.
            chart: shows curves and pictures.
            report: called with each line for the terminal.
        """
        self._run_id = mlflow_run_id
        self._dataset = dataset
        self._chart = chart
        self._report = report
        self._batch_size = config.training.batch_size
        self._num_epochs = config.training.num_epochs
        self._examples = _one_of_each(dataset)
        self._started = self._reported = time.monotonic()
        self._first_step: int | None = None

    def step(self, done: int, total: int, loss: float) -> None:
        """Update the chart, and report progress every `LINE_SECONDS`.

        Args:
            done: steps.
            total: steps.
            loss: of the last batch.
        """
        if self._first_step is None:
            self._first_step, self._started = done, time.monotonic()
        self._chart.step(done, total, loss)
        now = time.monotonic()
        if now - self._reported < LINE_SECONDS and done < total:
            return
        self._reported = now
        pace = (done - self._first_step) / max(now - self._started, 1e-6)
        bar = ("█" * round(BAR_WIDTH * done / total)).ljust(BAR_WIDTH, "░")
        left = f", {(total - done) / pace:.0f} s left" if pace else ""
        self._report(f"{bar} {done:,}/{total:,}  loss {loss:.3f}  {pace * self._batch_size:,.0f} images/s{left}")

    def restored(self, history: Sequence[Epoch]) -> None:
        """Show the epochs of an interrupted training, which are logged already."""
        for past in history:
            self._curves(past)
        self._report(f"continuing after epoch {history[-1].epoch}/{self._num_epochs}")

    def epoch(self, epoch: Epoch, model: nn.Module) -> None:
        """Log an epoch's metrics and one saliency map of each class."""
        metrics = {
            **self._curves(epoch),
            "learning_rate": epoch.learning_rate,
            "cpu_seconds": epoch.cpu_seconds,
        }
        tracking.log_metrics(self._run_id, metrics, step=epoch.epoch)
        picture = self._saliency(epoch, model)
        tracking.log_image(self._run_id, "saliency", picture, step=epoch.epoch)
        self._chart.picture(f"Saliency after epoch {epoch.epoch}", picture)
        self._report(
            f"epoch {epoch.epoch}/{self._num_epochs}: train/loss {epoch.train_loss:.3f}, "
            f"val/loss {epoch.val_loss:.3f}, val/accuracy {epoch.val_accuracy:.2%}"
        )

    def _curves(self, epoch: Epoch) -> dict[str, float]:
        losses = {"train/loss": epoch.train_loss, "val/loss": epoch.val_loss}
        accuracies = {"val/accuracy": epoch.val_accuracy}
        self._chart.epoch(epoch.epoch, losses, accuracies)
        return {**losses, **accuracies}

    def _saliency(self, epoch: Epoch, model: nn.Module) -> bytes:
        images = self._dataset.val.images[self._examples]
        inputs = torch.from_numpy(normalise(images, self._dataset.mean, self._dataset.std))
        maps = saliency(model, inputs)
        with torch.inference_mode():
            outputs = model(inputs.to(next(model.parameters()).device)).float().softmax(dim=1).cpu().numpy()
        figure = galleries.saliency(
            images,
            maps,
            self._dataset.class_names,
            labels=self._dataset.val.labels[self._examples],
            predictions=outputs.argmax(axis=1),
            confidences=outputs.max(axis=1),
            when=f"after epoch {epoch.epoch}",
        )
        return frame.to_png(figure)


def _one_of_each(dataset: Dataset) -> np.ndarray:
    """Positions of the first validation image of each class."""
    return np.unique(dataset.val.labels, return_index=True)[1]
