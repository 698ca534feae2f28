"""One configured training: builds the network that a configuration names and fits it to a data set."""

import torch
from torch import nn

from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset
from fashion.storage.blobs import Store
from fashion.training import models
from fashion.training.fit import Fitted, OnEpoch, OnRestored, OnStep, fit


def train(
    config: TrainConfig,
    dataset: Dataset,
    *,
    checkpoints: Store | None = None,
    on_epoch: OnEpoch | None = None,
    on_step: OnStep | None = None,
    on_restored: OnRestored | None = None,
) -> tuple[nn.Module, Fitted]:
    """Build and fit a network; see `fit` for checkpoints, callbacks and what is raised."""
    torch.manual_seed(config.training.seed)
    model = models.build(
        config.architecture,
        channels=config.data.channels,
        size=config.data.size,
        num_classes=len(config.data.class_names),
    )
    fitted = fit(
        model,
        dataset.train,
        dataset.val,
        architecture=config.architecture,
        training=config.training,
        optimizer=config.optimizer,
        augmentation=config.augmentation,
        mean=dataset.mean,
        std=dataset.std,
        num_classes=len(config.data.class_names),
        checkpoints=checkpoints,
        on_epoch=on_epoch,
        on_step=on_step,
        on_restored=on_restored,
    )
    return model, fitted
