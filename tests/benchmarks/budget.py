"""The default network and the wider one at equal processor time: from which length on the wider one is better."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset
from fashion.training import budget
from fashion.training.recipe import train
from tests.benchmarks.measurement import Cell, Options, Table, fashion_mnist, run_one, say

WIDER = (
    f"architecture.kwargs.widths={list(budget.WIDER)}".replace(" ", ""),
    f"augmentation.crop_padding={budget.WIDER_CROP}",
)
EPOCHS = (4, 6, 9, 13)
"""Of the wider network."""
SEEDS = (0, 1)


@dataclass(frozen=True)
class Trained:
    """One training."""

    seconds: float
    """Of the processor, validation included."""
    accuracy: float
    """On the validation split, at the best epoch."""


def tables(options: Options) -> Iterator[Table]:
    """Train both in turn for about the same time, with several seeds. The test split is not looked at."""
    data = fashion_mnist(1000 if options.quick else None)
    rows: list[dict[str, Cell]] = []
    for epochs in EPOCHS[:1] if options.quick else EPOCHS:
        for seed in SEEDS[:1] if options.quick else SEEDS:
            wider = _trained(data, epochs, seed, WIDER)
            narrow = [_trained(data, each, seed, ()) for each in (2 * epochs, 2 * epochs + epochs // 2)]
            for each in (wider, *narrow):
                say(f"{epochs} epochs of the wider one, seed {seed}: {each.seconds:.0f} CPU-s, {each.accuracy:.2%}")
            rows.append(
                {
                    "epochs of the wider": epochs,
                    "seed": str(seed),
                    "CPU-seconds": wider.seconds,
                    "wider": wider.accuracy,
                    "default at the same time": _interpolated(narrow, wider.seconds),
                }
            )
    note = (
        f"Validation accuracy of convnet with widths {'-'.join(map(str, budget.WIDER))} and a random crop, and of the "
        "default, between two of its lengths. `fit_budget` takes the wider one from "
        f"{budget.WIDER_FROM // 50_000} epochs on."
    )
    yield Table("Network by budget", rows, note, {"wider": ".2%", "default at the same time": ".2%"})


def _trained(data: Dataset, epochs: int, seed: int, words: tuple[str, ...]) -> Trained:
    settings = load_train_config(compose([*words, f"training.num_epochs={epochs}"]))
    training = dataclasses.replace(settings.training, seed=seed, num_threads=1)
    _, result = train(dataclasses.replace(settings, training=training), data)
    return Trained(result.history[-1].cpu_seconds, result.best.val_accuracy)


def _interpolated(runs: list[Trained], seconds: float) -> float:
    first, second = runs
    share = (seconds - first.seconds) / max(second.seconds - first.seconds, 1e-9)
    return first.accuracy + min(max(share, 0.0), 1.0) * (second.accuracy - first.accuracy)


if __name__ == "__main__":
    run_one("budget")
