"""Seconds of an epoch by one rank and by two, accuracy beside, and arithmetic to 64 ranks from what was measured."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from fashion.config.compose import compose
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset
from fashion.training import fit, launcher, recipe
from fashion.training.ranks import ALONE, Ranks
from fashion.training.state import Epoch
from tests.benchmarks.measurement import Cell, Options, Spread, Table, alternately, fashion_mnist, measured, run_one

WORLD_SIZES = (1, 2, 4, 8, 16, 32, 64)
FLOAT_BYTES = 4
"""Gradients are reduced in 32 bit, whatever the precision of the network."""


@dataclass(frozen=True)
class Network:
    """An input of the arithmetic: what connects the ranks."""

    name: str
    bytes_a_second: float
    latency_seconds: float
    """Of one message."""


NETWORKS = (
    Network("Ethernet of 10 Gbit/s, 50 us", 10e9 / 8, 50e-6),
    Network("Ethernet of 100 Gbit/s, 20 us", 100e9 / 8, 20e-6),
)


@dataclass(frozen=True)
class Trained:
    """One training."""

    seconds: tuple[float, ...]
    """Of each epoch but the first, which waits for processes to start."""
    cpu_seconds: tuple[float, ...]
    """Likewise, of all ranks together."""
    accuracy: float
    """On the validation split, in [0, 1]."""


@dataclass(frozen=True)
class StepCost:
    """What a step of one rank costs."""

    image_seconds: float
    """CPU time of one image, forward and backward: divided among ranks."""
    optimizer_seconds: float
    """CPU time of the update: each rank makes the same one."""
    gradient_bytes: int

    def seconds(self, batch_size: float, world_size: int, network: Network) -> float:
        """Of a step in which `world_size` ranks share a batch: a ring all-reduce after the backward pass.

        torch overlaps the two, so that this is an upper bound; stragglers are not in it, so that it is a lower one.
        """
        messages = 2 * (world_size - 1)
        reduce = messages / world_size * self.gradient_bytes / network.bytes_a_second
        return (
            batch_size / world_size * self.image_seconds
            + self.optimizer_seconds
            + reduce
            + messages * network.latency_seconds
        )


def tables(options: Options) -> Iterator[Table]:
    """Measure one rank and two, then what a step is made of, then compute."""
    words = ["training.num_epochs=2", "data.limit=1000"] if options.quick else ["training.num_epochs=4"]
    config = load_train_config(compose(words))
    data = fashion_mnist(config.data.limit)
    yield _epochs(config, data, options.seeds)
    cost = step_cost(config, data, steps=2 if options.quick else 30)
    yield _step(config, cost)
    for network in NETWORKS:
        yield arithmetic(config.training.batch_size, cost, network)


def _epochs(config: TrainConfig, data: Dataset, seeds: Sequence[int]) -> Table:
    found: dict[int, list[Trained]] = {1: [], 2: []}
    for seed in seeds:
        seeded = dataclasses.replace(config, training=dataclasses.replace(config.training, seed=seed))
        contenders = {str(ranks): partial(_trained, seeded, data, ranks) for ranks in found}
        for ranks, trained in alternately(contenders, 1).items():
            found[int(ranks)] += trained
    alone = statistics.median(_all(found[1], "seconds"))
    rows: list[dict[str, Cell]] = [
        {
            "ranks": str(ranks),
            "seconds an epoch": Spread(_all(trained, "seconds")),
            "CPU-s an epoch": Spread(_all(trained, "cpu_seconds")),
            "speed, one rank = 1": alone / statistics.median(_all(trained, "seconds")),
            "val/accuracy": Spread(tuple(each.accuracy for each in trained)),
        }
        for ranks, trained in found.items()
    ]
    return Table(
        "Epochs by ranks on this machine",
        rows,
        f"{len(data.train):,} images, batches of {config.training.batch_size} of all ranks together, "
        f"{config.training.num_epochs} epochs, {len(seeds)} seeds; one torch thread a rank, gloo over loopback. "
        "Validation is included, the first epoch is not: median (range).",
        {"seconds an epoch": ".1f", "CPU-s an epoch": ".1f", "speed, one rank = 1": ".2f", "val/accuracy": ".4f"},
    )


def _all(trained: Sequence[Trained], name: str) -> tuple[float, ...]:
    return tuple(value for each in trained for value in getattr(each, name))


def _trained(config: TrainConfig, data: Dataset, ranks: int) -> Trained:
    times: list[tuple[float, float]] = []

    def on_epoch(epoch: Epoch, _: nn.Module) -> None:
        times.append((time.perf_counter(), epoch.cpu_seconds))

    trained = launcher.train(config, data, ranks=Ranks(per_node=ranks), on_epoch=on_epoch)
    assert trained is not None
    differences = [(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(times)]
    seconds, cpu_seconds = zip(*differences, strict=True)
    return Trained(seconds, cpu_seconds, trained[1].best.val_accuracy)


def step_cost(config: TrainConfig, data: Dataset, *, steps: int) -> StepCost:
    """Measure the parts of a step in this process.

    Args:
        config: of the training.
        data: to train on.
        steps: that are measured; the median counts.
    """
    fabric = fit.set_up(config, ALONE)
    state = fit.initial_state(fabric, recipe.build(config), data, config, ALONE)
    state.wrapped.train()
    batches = iter(state.batches)
    compute, update = [], []
    for _ in range(steps):

        def backward() -> None:
            images, labels = next(batches)
            fabric.backward(F.cross_entropy(state.wrapped(images), labels))

        compute.append(measured(backward).cpu)
        update.append(measured(state.optimizer.step).cpu)
        state.optimizer.zero_grad()
    trained = sum(each.numel() for each in state.model.parameters() if each.requires_grad)
    images = min(config.training.batch_size, len(data.train))
    return StepCost(statistics.median(compute) / images, statistics.median(update), FLOAT_BYTES * trained)


def _step(config: TrainConfig, cost: StepCost) -> Table:
    batch_size = config.training.batch_size
    row: dict[str, Cell] = {
        "forward and backward, CPU-ms": 1000 * batch_size * cost.image_seconds,
        "update, CPU-ms": 1000 * cost.optimizer_seconds,
        "gradients, bytes a step": float(cost.gradient_bytes),
        "sent by each of 2 ranks, bytes a step": 2 * (2 - 1) / 2 * cost.gradient_bytes,
    }
    return Table(
        "What a step is made of",
        [row],
        f"{config.architecture.name}, {batch_size} images, {torch.get_num_threads()} thread: medians.",
        {name: ".1f" for name in row if name.endswith("CPU-ms")},
    )


def arithmetic(batch_size: int, cost: StepCost, network: Network) -> Table:
    """The time of a step by number of ranks, for a batch that stays and for one that grows with them.

    Args:
        batch_size: of all ranks where it stays, of each where it grows.
        cost: of a step of one rank.
        network: what connects the ranks.
    """
    alone = cost.seconds(batch_size, 1, network)
    rows: list[dict[str, Cell]] = []
    for ranks in WORLD_SIZES:
        shared, grown = cost.seconds(batch_size, ranks, network), cost.seconds(batch_size * ranks, ranks, network)
        rows.append(
            {
                "ranks": str(ranks),
                f"ms a step, {batch_size} images in all": 1000 * shared,
                "speed": alone / shared,
                "efficiency": alone / shared / ranks,
                f"ms a step, {batch_size} images a rank": 1000 * grown,
                "speed ": ranks * alone / grown,
                "efficiency ": alone / grown,
            }
        )
    formats = {name: ".1f" if name.startswith("ms") else ".2f" for name in rows[0]}
    return Table(
        f"Arithmetic to 64 ranks: {network.name}",
        rows,
        f"Computed, not measured: {1e6 * cost.image_seconds:.0f} us an image and {1000 * cost.optimizer_seconds:.1f} "
        f"ms an update from the table above, and a ring all-reduce of {cost.gradient_bytes:,} bytes, not overlapped, "
        f"over {network.bytes_a_second / 1e9:.2f} GB/s and {1e6 * network.latency_seconds:.0f} us a message; "
        "no stragglers.",
        formats,
    )


if __name__ == "__main__":
    run_one("distributed")
