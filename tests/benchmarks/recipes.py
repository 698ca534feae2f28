"""Changes of the default recipe, one at a time: validation accuracy and CPU-seconds beside it, seed by seed."""

import dataclasses
import functools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY
from tests.benchmarks.measurement import Cell, Options, Results, Table, fashion_mnist, run_one, say

RESULTS = REPOSITORY / "var" / "recipes.json"
"""Finished trainings: a run that is started again goes on with the others."""
BASE = "the default recipe"
TRIES: Mapping[str, tuple[str, ...]] = {
    BASE: (),
    "learning rate 0.04": ("optimizer.learning_rate=0.04",),
    "learning rate 0.1": ("optimizer.learning_rate=0.1",),
    "learning rate of the head 0.2": ("optimizer.head_learning_rate=0.2",),
    "momentum 0.6": ("optimizer.momentum=0.6",),
    "momentum 0.9": ("optimizer.momentum=0.9",),
    "cosine schedule": ("optimizer.schedule=cosine",),
    "a tenth of warm-up": ("optimizer.warmup_fraction=0.1",),
    "weight decay 0.0005": ("optimizer.weight_decay=0.0005",),
    "batches of 125": ("training.batch_size=125",),
    "batches of 500": ("training.batch_size=500",),
    "no label smoothing": ("training.label_smoothing=0",),
    "label smoothing 0.2": ("training.label_smoothing=0.2",),
    "average of the weights (EMA 0.99)": ("training.ema_decay=0.99",),
    "gradients clipped to 1": ("training.gradient_clip_norm=1",),
    "dropout 0.1": ("architecture.drop_rate=0.1",),
    "random crops by 1 pixel": ("augmentation.crop_padding=1",),
    "no flips": ("augmentation.flip=none",),
    "random flips": ("augmentation.flip=random",),
    "a quarter with an erased part": ("augmentation.erase_probability=0.25",),
    "a tenth distorted": ("augmentation.distort_share=0.1",),
    "AdamW": ("optimizer=adamw",),
    "SGD": ("optimizer=sgd",),
    "32 bit": ("architecture.precision=32-true",),
    "widths 16-48-128": ("architecture.kwargs.widths=[16,48,128]",),
    "widths 24-64-128": ("architecture.kwargs.widths=[24,64,128]",),
    "widths 32-64-128": ("architecture.kwargs.widths=[32,64,128]",),
}
"""What is changed -> by which overrides of `train_flow.py run`."""


@dataclass(frozen=True)
class Trained:
    """One training."""

    cpu_seconds: float
    accuracy: float
    """On the validation split, at the end of the epoch that was best on it."""


def tables(options: Options) -> Iterator[Table]:
    """Train each with every seed, seed by seed, so that what else the machine does meets all of them alike."""
    num_epochs = 1 if options.quick else options.epochs[0]
    limit = 500 if options.quick else None
    results = Results(None if options.quick else RESULTS)
    data = fashion_mnist(limit)
    names = list(TRIES)[:3] if options.quick else list(TRIES)
    found: dict[str, list[Trained]] = {name: [] for name in names}
    for seed in options.seeds:
        for name in names:
            key = " ".join([*TRIES[name], f"epochs={num_epochs}", f"seed={seed}"])
            train = functools.partial(_train, name, num_epochs, seed, data, limit)
            found[name].append(results.get(key, Trained, train))
    yield _summarize(found, num_epochs, options.seeds)


def _train(name: str, num_epochs: int, seed: int, data: Dataset, limit: int | None) -> Trained:
    from fashion.training import recipe

    words = [] if limit is None else [f"data.limit={limit}", "training.min_steps=0"]
    settings = load_train_config(compose([*TRIES[name], *words, f"training.num_epochs={num_epochs}"]))
    training = dataclasses.replace(settings.training, seed=seed, num_threads=1)
    _, result = recipe.train(dataclasses.replace(settings, training=training), data)
    trained = Trained(result.history[-1].cpu_seconds, result.best.val_accuracy)
    say(f"{name}, seed {seed}: {trained.accuracy:.2%} in {trained.cpu_seconds:.0f} CPU-seconds")
    return trained


def _summarize(found: Mapping[str, Sequence[Trained]], num_epochs: int, seeds: Sequence[int]) -> Table:
    """One row for each, those that gain most first, the default recipe on top."""
    base = found[BASE]
    rows: list[dict[str, Cell]] = []
    for name, runs in found.items():
        gains = [100 * (run.accuracy - usual.accuracy) for run, usual in zip(runs, base, strict=True)]
        ratio = statistics.mean(run.cpu_seconds / usual.cpu_seconds for run, usual in zip(runs, base, strict=True))
        rows.append(
            {
                "changed": name,
                "by": f"`{' '.join(TRIES[name])}`" if TRIES[name] else "",
                "val accuracy": statistics.mean(run.accuracy for run in runs),
                "points more": None if name == BASE else statistics.mean(gains),
                "each seed": None if name == BASE else ", ".join(f"{gain:+.2f}" for gain in gains),
                "CPU-s": statistics.mean(run.cpu_seconds for run in runs),
                "times the CPU": None if name == BASE else ratio,
            }
        )
    first, *others = rows
    others.sort(key=lambda row: -float(str(row["points more"])))
    return Table(
        "Changes of the default recipe",
        [first, *others],
        f"Fashion-MNIST, {num_epochs} epochs on one thread, seeds {', '.join(map(str, seeds))}; each with the default "
        "recipe of the same seed. The test split is not read. One standard error of a difference between two "
        "trainings is about 0.25 points, so smaller ones say nothing by themselves.",
        {"val accuracy": ".2%", "points more": "+.2f", "CPU-s": ".0f", "times the CPU": ".2f"},
    )


if __name__ == "__main__":
    run_one("recipes")
