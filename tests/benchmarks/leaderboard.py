"""Train several networks for the same processor time each, and compare them: `make leaderboard ARGS="resnet50"`."""

import argparse
import dataclasses
import functools
import math
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion.config.compose import CONFIGS, compose
from fashion.config.schema import ConfigError
from fashion.config.train import TrainConfig, load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.evaluation import shifted
from fashion.home import REPOSITORY
from fashion.images.transform import Images, normalise
from fashion.metrics.classification import wilson_interval
from fashion.model.predictor import OnnxNetwork
from tests.benchmarks.measurement import Cell, Options, Results, Table, circumstances, fashion_mnist, say

SHIPPED = tuple(sorted(path.stem for path in (CONFIGS / "architecture").glob("*.yaml") if path.stem != "timm"))
RESULTS = REPOSITORY / "var" / "leaderboard.json"
"""Finished trainings: a run that is started again goes on with the others."""
VAL_ROWS = 2000
"""Rows that each epoch is validated on: all of them would be a large part of a small budget."""
SHIFTED_ROWS = 200
"""Test rows of each shifted copy."""
CALLS = 200
"""Single pictures whose processor time is measured."""


@dataclass(frozen=True)
class Trained:
    """One training within the budget."""

    name: str
    """A file in configs/architecture, or a name of timm."""
    seed: int
    budget: float
    """Seconds that it was planned for."""
    seconds: float
    """Seconds that it took: of the processor, or of the clock on a GPU."""
    epochs: int
    rows: int
    """Training rows of each epoch; fewer than there are where a whole number of epochs did not fit."""
    parameters: int
    accuracy: float
    """On all test rows."""
    shifted: float
    """Mean accuracy on shifted copies of test rows."""


@dataclass(frozen=True)
class Footprint:
    """What a network costs to serve; its weights do not matter."""

    name: str
    milliseconds: float
    """Processor time of one picture, as the service computes it, on one thread."""
    megabytes: float
    """Of model.onnx, which is nearly all of a package."""


def tables(options: Options) -> Iterator[Table]:
    """As one of the benchmarks: a few seconds each with `--quick`, else a minute for each network and seed."""
    budget = 1.0 if options.quick else 60.0
    names = ("convnet", "resnet") if options.quick else SHIPPED
    data = fashion_mnist(1000 if options.quick else None)
    trained = [
        train_within(budget, settings_of(name, seed, limit=1000 if options.quick else None), data, name=name)
        for seed in options.seeds
        for name in names
    ]
    footprints = {name: measure(settings_of(name, 42), data, name=name) for name in names}
    yield summarize(trained, footprints)


def settings_of(name: str, seed: int, *, limit: int | None = None) -> TrainConfig:
    """The configuration of a network, with its own recipe.

    Args:
        name: a file in configs/architecture, or a name of timm.
        seed: of weights, order and augmentation.
        limit: rows of each split; None for all.

    Raises:
        ConfigError: there is no such network.
    """
    chosen = f"architecture={name}" if name in SHIPPED else f"architecture.name={name}"
    settings = load_train_config(compose([chosen, *([] if limit is None else [f"data.limit={limit}"])]))
    training = dataclasses.replace(settings.training, seed=seed, num_threads=1, min_steps=0)
    return dataclasses.replace(settings, training=training)


def train_within(
    budget: float, settings: TrainConfig, data: Dataset, *, name: str, shifted_copies: bool = True
) -> Trained:
    """Measure how long a step takes, fit a schedule to the budget, train, export, and score the network.

    Args:
        budget: seconds of the processor, or of the clock on a GPU.
        settings: of the training; the number of epochs is set here.
        data: to train and score on.
        name: for the results.
        shifted_copies: False to leave them out; their accuracy is then not a number.
    """
    from fashion.training import recipe
    from fashion.training.budget import seconds_of_a_step

    data = dataclasses.replace(data, val=_first(data.val, VAL_ROWS))
    batch = min(settings.training.batch_size, len(data.train))
    steps = max(1, int(budget / seconds_of_a_step(settings, data, _clock())))
    num_epochs, rows = schedule(steps * batch, len(data.train), batch)
    part = dataclasses.replace(data, train=_first(data.train, rows))
    planned = dataclasses.replace(settings, training=dataclasses.replace(settings.training, num_epochs=num_epochs))
    clock = _clock()
    began = clock()
    model, _ = recipe.train(planned, part)
    seconds = clock() - began
    spread = np.linspace(0, len(data.test) - 1, min(len(data.test), SHIFTED_ROWS)).astype(int)
    copies = shifted.copies(Split(data.test.images[spread], data.test.labels[spread])) if shifted_copies else []
    trained = Trained(
        name=name,
        seed=settings.training.seed,
        budget=budget,
        seconds=seconds,
        epochs=num_epochs,
        rows=rows,
        parameters=sum(each.numel() for each in model.parameters()),
        accuracy=accuracy_of(model, data.test, data),
        shifted=float(np.mean([accuracy_of(model, copy, data) for _, copy in copies])) if shifted_copies else math.nan,
    )
    say(f"{name}, seed {trained.seed}: {num_epochs} x {rows:,} rows in {seconds:.0f} s, {trained.accuracy:.2%}")
    return trained


def measure(settings: TrainConfig, data: Dataset, *, name: str) -> Footprint:
    """Export a network that is not trained, and time it.

    Args:
        settings: of the network.
        data: whose pictures it is shown.
        name: for the results.
    """
    from fashion.training import export, recipe

    images = data.test.images[:20]
    exported = export.export(recipe.build(settings).eval(), images, mean=data.mean, std=data.std)
    network = OnnxNetwork(exported.onnx)

    def predict(image: Images) -> None:
        network(normalise(image, data.mean, data.std))

    for image in images:
        predict(image[None])
    began = time.process_time()
    for call in range(CALLS):
        predict(images[call % len(images)][None])
    footprint = Footprint(name, 1000 * (time.process_time() - began) / CALLS, len(exported.onnx) / 1e6)
    say(f"{name}: {footprint.milliseconds:.2f} ms a picture, {footprint.megabytes:.1f} MB")
    return footprint


def schedule(images: int, available: int, batch: int) -> tuple[int, int]:
    """Epochs, and rows of each, that together are about so many images, and of whole batches.

    Args:
        images: that the budget allows.
        available: training rows.
        batch: rows of a batch.
    """
    num_epochs = max(1, math.ceil(images / available - 0.15))
    rows = min(available, max(batch, images // num_epochs // batch * batch))
    return num_epochs, rows


def summarize(trained: Sequence[Trained], footprints: Mapping[str, Footprint]) -> Table:
    """One row for each network, the most accurate first."""
    by_name = {
        name: [run for run in trained if run.name == name] for name in dict.fromkeys(run.name for run in trained)
    }
    rows: list[dict[str, Cell]] = []
    for name, runs in sorted(by_name.items(), key=lambda each: -_mean(each[1], "accuracy")):
        accuracy = _mean(runs, "accuracy")
        low, high = wilson_interval(round(accuracy * 10_000), 10_000)
        seen = _mean(runs, "epochs") * _mean(runs, "rows")
        rows.append(
            {
                "network": name,
                "test accuracy": f"{accuracy:.2%}",
                "95 % interval": f"{low:.1%} to {high:.1%}",
                "seeds": ", ".join(f"{run.accuracy:.2%}" for run in runs),
                "shifted copies": f"{_mean(runs, 'shifted'):.1%}",
                "seconds": _mean(runs, "seconds"),
                "pictures seen": seen,
                "parameters": float(runs[0].parameters),
                "ms a picture": footprints[name].milliseconds,
                "model.onnx, MB": footprints[name].megabytes,
            }
        )
    return Table(
        "Leaderboard",
        rows,
        f"Each network is trained for {trained[0].budget:g} s of processor time (of the clock on a GPU) with its own "
        "recipe and a learning-rate schedule of that length, on one thread; a step is timed first. The interval is "
        "Wilson's, of the mean over the seeds and 10,000 test rows. Shifted copies are those of the gate "
        f"(fashion/evaluation/shifted.py), on {SHIFTED_ROWS} test rows. A picture's milliseconds are processor time in "
        "ONNX Runtime on one thread.",
        {"ms a picture": ".2f", "model.onnx, MB": ".2f"},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, print the table, and write the page if one is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.leaderboard", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SHIPPED), help=f"also of timm; default {' '.join(SHIPPED)}")
    parser.add_argument("--seconds", type=float, default=60, help="of each training; default 60")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43], help="default 42 43")
    parser.add_argument("--limit", type=int, help="rows of each split, for a quick look")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="of finished trainings; default var/leaderboard.json"
    )
    parser.add_argument(
        "--page", type=Path, metavar="FILE", help="write the page and its figure, as docs/leaderboard.md"
    )
    arguments = parser.parse_args(argv)
    import torch

    torch.set_num_threads(1)
    conditions = circumstances()
    try:
        wanted = {
            (name, seed): settings_of(name, seed, limit=arguments.limit)
            for seed in arguments.seeds
            for name in arguments.names
        }
    except ConfigError as error:
        parser.error(str(error))
    results = Results(arguments.results)
    data = fashion_mnist(arguments.limit)
    trained, footprints = [], {}
    try:
        for (name, seed), settings in wanted.items():
            key = f"{name} {seed} {arguments.seconds:g} {arguments.limit}"
            train = functools.partial(train_within, arguments.seconds, settings, data, name=name)
            trained.append(results.get(key, Trained, train))
        for (name, _), settings in wanted.items():
            footprints[name] = results.get(name, Footprint, functools.partial(measure, settings, data, name=name))
    except ConfigError as error:
        parser.error(str(error))
    table = summarize(trained, footprints)
    print(table.markdown())
    if arguments.page is not None:
        from tests.benchmarks.leaderboard_page import write

        command = f'make leaderboard ARGS="{shlex.join(sys.argv[1:] if argv is None else argv)}"'
        write(arguments.page, trained, table, conditions, command=command)


def _clock() -> Callable[[], float]:
    import torch

    return time.perf_counter if torch.cuda.is_available() else time.process_time


def accuracy_of(model: Any, split: Split, data: Dataset) -> float:
    """Share of a split that a network of torch is right on."""
    import torch
    from lightning_fabric import Fabric

    from fashion.training.fit import ordered_batches, validate

    batches = ordered_batches(split, data, torch.device("cpu"))
    return float(validate(Fabric(accelerator="cpu", devices=1), model, batches)[1])


def _first(split: Split, count: int) -> Split:
    return Split(split.images[:count], split.labels[:count])


def _mean(runs: Sequence[Trained], field: str) -> float:
    return float(statistics.mean(getattr(run, field) for run in runs))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
