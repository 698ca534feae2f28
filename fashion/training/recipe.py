"""One configured training: build the network that a configuration names, and train it on a data set."""

import dataclasses
import math
from importlib import metadata
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fashion.config.compose import as_dict
from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset, Split
from fashion.storage.blobs import Store
from fashion.training import models
from fashion.training.fit import FitResult, OnEpoch, OnRestored, OnStep, fit
from fashion.training.ranks import ALONE, Rank

SMALLEST_BATCH = 16
"""Images: the statistics of a batch, which networks normalise by, are too noisy with fewer."""
SEEN_OF_A_CLASS = 180
"""Pictures of each class that such a training sees at least. Of 120 classes with 3 pictures each, 50 % of the test were
right after 73 of each, 63 and 67 % after 180 and 183 (120 rows, one seed)."""
STEPS_OF_AN_EPOCH = 16
"""Batches into which a small training split is divided."""


def train(
    config: TrainConfig,
    dataset: Dataset,
    *,
    rank: Rank = ALONE,
    checkpoints: Store | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    on_restored: OnRestored | None = None,
) -> tuple[nn.Module, FitResult]:
    """Build and train a network. The arguments are those of `fit`.

    Raises:
        ConfigError: the network cannot be built.
        Diverged: the loss is NaN or infinite, or no better than guessing.
    """
    offsets = loss_offsets(dataset.train.labels, len(dataset.class_names), config.training.logit_adjustment)
    config, dataset = suit_to_data(config, dataset)
    model = build(config)
    result = fit(
        model,
        dataset,
        config,
        rank=rank,
        offsets=offsets,
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_step=on_step,
        on_restored=on_restored,
    )
    return model, result


def loss_offsets(labels: NDArray[np.int64], num_classes: int, adjustment: float) -> NDArray[np.float32] | None:
    """What is added to the logits in the loss, so that rare classes are found more often (Menon et al. 2021).

    Trained so, a network's own logits give the probabilities of classes with shares of p ** (1 - adjustment), where the
    data have p.

    Args:
        labels: of the training rows.
        num_classes: of the labels.
        adjustment: in [0, 1].

    Returns:
        `(num_classes,)`; None for no adjustment.
    """
    if adjustment == 0:
        return None
    counts = np.maximum(np.bincount(labels, minlength=num_classes), 1)
    offsets: NDArray[np.float32] = (adjustment * np.log(counts / counts.sum())).astype(np.float32)
    return offsets


def suit_to_data(config: TrainConfig, dataset: Dataset) -> tuple[TrainConfig, Dataset]:
    """Adapt a training to what there is: smaller batches of few pictures, each shown several times an epoch, and no
    mirrored ones where those would be of another class.

    Args:
        config: of the training.
        dataset: its training split is repeated where it is small.
    """
    augmentation, training, train = config.augmentation, config.training, dataset.train
    if not config.data.mirrored:
        augmentation = dataclasses.replace(augmentation, flip="none")
    steps = training.num_epochs * max(1, len(train) // training.batch_size)
    is_small = len(train) < training.min_steps * SMALLEST_BATCH  # of many pictures, few epochs are somebody's choice
    if config.data.limit is None and is_small and steps < training.min_steps:
        batch_size = min(training.batch_size, max(SMALLEST_BATCH, len(train) // STEPS_OF_AN_EPOCH))
        training = dataclasses.replace(training, batch_size=batch_size)
        seen = max(training.min_steps * batch_size, SEEN_OF_A_CLASS * len(dataset.class_names))
        times = math.ceil(seen / (training.num_epochs * len(train)))
        train = Split(*(np.concatenate([rows] * times) for rows in (train.images, train.labels)))
    return (
        dataclasses.replace(config, augmentation=augmentation, training=training),
        dataclasses.replace(dataset, train=train),
    )


def build(config: TrainConfig) -> nn.Module:
    """The network that a configuration names, with the first weights that its seed gives.

    Raises:
        ConfigError: the network cannot be built.
    """
    torch.manual_seed(config.training.seed)
    return models.build(
        config.architecture,
        channels=config.data.channels,
        size=config.data.size,
        num_classes=len(config.data.class_names),
    )


def describe(config: TrainConfig, result: FitResult) -> dict[str, Any]:
    """How a model was trained, as plain values for its package."""
    return {
        "config": as_dict(config.training),
        "optimizer": as_dict(config.optimizer),
        "augmentation": as_dict(config.augmentation),
        "best_epoch": result.best.epoch,
        "cpu_seconds": result.history[-1].cpu_seconds,
        "precision": result.precision,
        "device": result.device,
        "num_threads": result.num_threads,
        "world_size": result.world_size,
        "libraries": libraries(),
        "processor": processor(),
    }


def processor() -> str:
    """The instructions that torch uses on this processor, such as AVX2: sums in another order have other last bits."""
    return str(torch.backends.cpu.get_cpu_capability())


def libraries() -> dict[str, str]:
    """The packages whose version may change a network's weights -> their versions."""
    return {name: metadata.version(name) for name in ("torch", "timm", "lightning-fabric", "numpy")}
