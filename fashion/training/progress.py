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
from fashion.registry import sender
from fashion.registry.sender import Record, Sender
from fashion.storage.blobs import Store, StoreUnavailable
from fashion.training.saliency import saliency
from fashion.training.state import Epoch

LINE_SECONDS = 10.0
"""Seconds between two lines of progress."""
BAR_WIDTH = 24
"""Characters."""
KEY = "val/accuracy"
"""A metric that each epoch has."""


class Chart(Protocol):
    """Shows curves and pictures while a training runs."""

    def step(self, done: int, total: int, loss: float) -> None: ...

    def epoch(self, number: int, losses: Mapping[str, float], accuracies: Mapping[str, float]) -> None: ...

    def picture(self, caption: str, png: bytes) -> None: ...


class Watch:
    """Callbacks for `fit`: `step`, `epoch` and `restored`. `close` it at the end."""

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
        self._sender = Sender(mlflow_run_id, key=KEY, report=report)
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
        """Show the epochs of an interrupted training, and log those that were not logged before it."""
        for past in history:
            self._sender.put(Record(past.epoch, self._metrics(past)))
        self._report(f"continuing after epoch {history[-1].epoch}/{self._num_epochs}")

    def epoch(self, epoch: Epoch, model: nn.Module) -> None:
        """Log an epoch's metrics and one saliency map of each class."""
        picture = self._saliency(epoch, model)
        self._sender.put(Record(epoch.epoch, self._metrics(epoch), {"saliency": picture}))
        self._chart.picture(f"Saliency after epoch {epoch.epoch}", picture)
        self._report(
            f"epoch {epoch.epoch}/{self._num_epochs}: train/loss {epoch.train_loss:.3f}, "
            f"val/loss {epoch.val_loss:.3f}, val/accuracy {epoch.val_accuracy:.2%}"
        )

    def close(self, store: Store, *, timeout_s: float) -> None:
        """Wait until all epochs are logged; store those that no server takes in time, for `sender.send_kept`.

        Args:
            store: with the checkpoint.
            timeout_s: how long to wait.
        """
        unsent = self._sender.close(timeout_s)
        if not unsent:
            return
        name = f"{store.address}/{sender.UNSENT}"
        try:
            sender.keep(store, unsent, key=KEY)
        except StoreUnavailable as error:
            self._report(
                f"metrics of {len(unsent)} epochs are lost: neither MLflow nor {name} can be written ({error})"
            )
            return
        self._report(f"metrics of {len(unsent)} epochs are in {name}, and are sent to MLflow by the next step")

    def _metrics(self, epoch: Epoch) -> dict[str, float]:
        losses = {"train/loss": epoch.train_loss, "val/loss": epoch.val_loss}
        accuracies = {KEY: epoch.val_accuracy}
        self._chart.epoch(epoch.epoch, losses, accuracies)
        return {
            **losses,
            **accuracies,
            "learning_rate": epoch.learning_rate,
            "cpu_seconds": epoch.cpu_seconds,
        }

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
