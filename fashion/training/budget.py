"""What a training does with a budget of processor time: how many epochs fit, and of which network. Trains briefly.

Which network is better at which length was measured on Fashion-MNIST: `make bench ARGS="budget"`.
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fashion.config.train import TrainConfig
from fashion.data.dataset import Dataset, Split
from fashion.training import recipe

DEFAULT_WIDTHS, WIDER = (16, 64, 128), (32, 96, 192)
"""Of `convnet`."""
WIDER_CROP = 1
"""Pixels: longer trainings of more weights overfit without a random crop."""
WIDER_FROM = 400_000
"""Training pictures, over all epochs, from which on the wider network is better in the same time."""
MOST_EPOCHS = 100
"""A small budget would hold thousands of epochs of few pictures, which overfit."""
WARM_BATCHES = (2, 2, 6)
"""Batches of the trainings that are timed: the first one sets up kernels, and the second is what each does once."""
VAL_COST = 0.35
"""Processor time of a validated picture, as a share of a trained one."""


@dataclass(frozen=True)
class Plan:
    """A training that fits a budget."""

    config: TrainConfig
    """With the epochs, and the network, that were chosen; its budget is None."""
    seconds: float
    """Processor time that it will take on this machine, as far as was measured."""
    sentence: str
    """What was chosen and why, without a full stop."""


def plan(config: TrainConfig, data: Dataset) -> Plan:
    """Choose what to train in `config.fit_budget` seconds of this machine's processor.

    The number of epochs is what fits. The default network gives way to a wider one where so many epochs of that fit
    that it becomes more accurate; a network that somebody has configured stays.

    Args:
        config: of the training.
        data: to train on.

    Raises:
        ValueError: there is no budget.
        ConfigError: the network cannot be built.
    """
    if config.fit_budget is None:
        raise ValueError("fit_budget is None")
    if _is_default(config):
        wider = _fit(_widened(config), data, config.fit_budget, is_wider=True)
        if wider.seconds <= config.fit_budget and wider.config.training.num_epochs * len(data.train) >= WIDER_FROM:
            return wider
    return _fit(config, data, config.fit_budget)


def seconds_of_an_epoch(config: TrainConfig, data: Dataset) -> float:
    """Measure the processor time of one epoch with its validation, on this machine and its configured threads."""
    batch = min(config.training.batch_size, len(data.train))
    pictures = len(data.train) + VAL_COST * len(data.val)
    return pictures / batch * seconds_of_a_step(config, data, time.process_time)


def seconds_of_a_step(config: TrainConfig, data: Dataset, clock: Callable[[], float]) -> float:
    """Measure the training of one batch: that of six batches less that of two, so that what a training does once does
    not count.

    Args:
        config: of the training.
        data: to train on.
        clock: seconds, of the processor or of the wall.
    """
    training = dataclasses.replace(config.training, num_epochs=1, min_steps=0)
    batch = min(training.batch_size, len(data.train))
    val, seconds = Split(data.val.images[:16], data.val.labels[:16]), []
    for batches in WARM_BATCHES:
        rows = np.arange(batches * batch) % len(data.train)
        few = Split(data.train.images[rows], data.train.labels[rows])
        began = clock()
        recipe.train(dataclasses.replace(config, training=training), dataclasses.replace(data, train=few, val=val))
        seconds.append(clock() - began)
    return max((seconds[2] - seconds[1]) / (WARM_BATCHES[2] - WARM_BATCHES[1]), 1e-4)


def _is_default(config: TrainConfig) -> bool:
    widths = tuple(config.architecture.kwargs.get("widths", ()))
    return config.architecture.name == "convnet" and widths == DEFAULT_WIDTHS and config.augmentation.crop_padding == 0


def _widened(config: TrainConfig) -> TrainConfig:
    kwargs = {**config.architecture.kwargs, "widths": list(WIDER)}
    return dataclasses.replace(
        config,
        architecture=dataclasses.replace(config.architecture, kwargs=kwargs),
        augmentation=dataclasses.replace(config.augmentation, crop_padding=WIDER_CROP),
    )


def _fit(config: TrainConfig, data: Dataset, budget: float, *, is_wider: bool = False) -> Plan:
    """Give one network the epochs that fit."""
    epoch = seconds_of_an_epoch(config, data)
    num_epochs = max(1, min(MOST_EPOCHS, int(budget / epoch)))
    training = dataclasses.replace(config.training, num_epochs=num_epochs)
    chosen = dataclasses.replace(config, training=training, fit_budget=None)
    return Plan(chosen, num_epochs * epoch, _describe(budget, chosen, epoch, is_wider=is_wider))


def _describe(budget: float, chosen: TrainConfig, epoch: float, *, is_wider: bool) -> str:
    epochs = chosen.training.num_epochs
    network = chosen.architecture.name
    if is_wider:
        widths = "-".join(map(str, chosen.architecture.kwargs["widths"]))
        network = f"{network} of widths {widths}, wider than the default as that pays from here on,"
    length = f"{epochs} epoch{'s' if epochs > 1 else ''} of about {epoch:.2g} CPU-seconds"
    rest = ""
    if epoch > budget:
        rest = ": one takes longer than the budget"
    elif epochs == MOST_EPOCHS:
        rest = ", the most that are planned"
    return f"fit_budget={budget:g}: {network} for {length}{rest}"
