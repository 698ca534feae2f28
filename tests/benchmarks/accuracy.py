"""Accuracy over CPU-seconds of training: this project's default network, and trainings as others write them."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY
from tests.benchmarks import leaderboard, trainers
from tests.benchmarks.measurement import Cell, Options, Results, Spread, Table, fashion_mnist, run_one, say
from tests.benchmarks.trainers import Recipe

RESULTS = REPOSITORY / "var" / "accuracy.json"
"""Finished trainings: a run that is started again goes on with the others."""
PROJECT = "this project, its default network"
BUDGETS = (15.0, 30.0, 60.0, 120.0)
"""CPU-seconds of one core."""
TIMED = (4, 14)
"""A step takes what a training of so many steps takes more than one of fewer."""


@dataclass(frozen=True)
class Trained:
    """One training."""

    cpu_seconds: float
    epochs: float
    """Training images that were seen, in passes over all of them."""
    accuracy: float
    """On the test split."""


def tables(options: Options) -> Iterator[Table]:
    """Train each for every budget and seed, budget by budget."""
    budgets = (0.5, 1.0) if options.quick else BUDGETS
    data = fashion_mnist(2000 if options.quick else None)
    results = Results(None if options.quick else RESULTS)
    contenders: Mapping[str, Callable[[float, int], Trained]] = {
        PROJECT: functools.partial(_project, data, limit=2000 if options.quick else None),
        **{name: functools.partial(_other, name, recipe, data) for name, recipe in trainers.recipes().items()},
    }
    found: dict[tuple[str, float], list[Trained]] = {}
    for budget in budgets:
        for seed in options.seeds:
            for name, train in contenders.items():
                key = f"{name}, {budget:g} s, seed {seed}"
                trained = results.get(key, Trained, functools.partial(train, budget, seed))
                found.setdefault((name, budget), []).append(trained)
    yield _table(found, options.seeds)


def _project(data: Dataset, budget: float, seed: int, *, limit: int | None) -> Trained:
    settings = leaderboard.settings_of("convnet", seed, limit=limit)
    trained = leaderboard.train_within(budget, settings, data, name=PROJECT, shifted_copies=False)
    return Trained(trained.seconds, trained.epochs * trained.rows / len(data.train), trained.accuracy)


def _other(name: str, recipe: Recipe, data: Dataset, budget: float, seed: int) -> Trained:
    def seconds(steps: int) -> float:
        began = time.process_time()
        trainers.train(recipe, data, steps, seed=seed)
        return time.process_time() - began

    few, many = TIMED
    seconds(few)  # what only a first training pays
    step = max(1e-4, (seconds(many) - seconds(few)) / (many - few))
    steps = max(1, int(budget / step))
    began = time.process_time()
    model = trainers.train(recipe, data, steps, seed=seed)
    spent = time.process_time() - began
    trained = Trained(
        spent, steps * recipe.batch_size / len(data.train), leaderboard.accuracy_of(model, data.test, data)
    )
    say(f"{name}, seed {seed}: {trained.epochs:.1f} epochs in {spent:.0f} CPU-seconds, {trained.accuracy:.2%}")
    return trained


def _table(found: Mapping[tuple[str, float], Sequence[Trained]], seeds: Sequence[int]) -> Table:
    rows: list[dict[str, Cell]] = [
        {
            "training": name,
            "budget, CPU-s": budget,
            "CPU-s": statistics.mean(run.cpu_seconds for run in runs),
            "epochs": statistics.mean(run.epochs for run in runs),
            "test accuracy": Spread(tuple(run.accuracy for run in runs)),
        }
        for (name, budget), runs in found.items()
    ]
    return Table(
        "Accuracy over CPU-seconds",
        rows,
        f"Fashion-MNIST, one thread; median (range) over the seeds {', '.join(map(str, seeds))}. A step is timed "
        "first, and the learning-rate schedule made as long as fits the budget. The network of the last step counts, "
        "for this project that of its best epoch on 2,000 validation pictures. Lightning's Trainer runs without "
        "validation. Networks are the ones that each recipe is written for: that resnet18 halves 28 pixels five times "
        "is part of what is compared.",
        {"epochs": ".1f", "test accuracy": ".2%", "budget, CPU-s": "g"},
    )


if __name__ == "__main__":
    run_one("accuracy")
