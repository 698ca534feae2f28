"""Pictures in bad light, blurred, noisy or turned: what is right with and without `augmentation.distort_share`."""

import dataclasses
import statistics
import time
from collections.abc import Iterator

import numpy as np

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.images.corruptions import CORRUPTIONS, corrupt
from fashion.images.transform import Images, normalise
from tests.benchmarks.measurement import Cell, Options, Spread, Table, fashion_mnist, run_one, say

SHARES = (0.0, 0.1, 0.2, 0.35, 0.5)
AMOUNTS = (0.1, 0.2, 0.35)
"""Of each corruption."""
ROWS = 2000
"""Pictures of each corrupted copy."""


def tables(options: Options) -> Iterator[Table]:
    """Train the default recipe with each share and seed; score the validation rows to choose by, and the test rows."""
    data = fashion_mnist(2000 if options.quick else None)
    rows: list[dict[str, Cell]] = []
    by_kind: list[dict[str, Cell]] = []
    for share in SHARES[:2] if options.quick else SHARES:
        found = [_score(data, share, seed, quick=options.quick) for seed in options.seeds]
        columns = {name: Spread(tuple(each[name] for each in found)) for name in ("CPU-s", *_names())}
        rows.append({"distort_share": f"{share:g}", **columns})
        kinds = {kind: statistics.mean(each[kind] for each in found) for kind in sorted(CORRUPTIONS)}
        by_kind.append({"distort_share": f"{share:g}", **kinds})
    yield Table(
        "Robustness",
        rows,
        f"Fashion-MNIST, the default recipe, {len(options.seeds)} seeds; median (range). Corrupted: the mean over "
        f"{len(CORRUPTIONS)} corruptions of `fashion traffic` at the amounts {', '.join(map(str, AMOUNTS))}, of "
        f"{ROWS:,} rows each. All but jpeg are of kinds that the training shows, at random amounts and by other code. "
        "A share is chosen by validation; test is for what was chosen.",
        {"CPU-s": ".0f", **dict.fromkeys(_names(), ".2%")},
    )
    yield Table(
        "Robustness by corruption",
        [{"corruption": kind, **{str(row["distort_share"]): row[kind] for row in by_kind}} for kind in CORRUPTIONS],
        "Test rows, mean over the seeds and amounts; columns are values of distort_share.",
        {f"{share:g}": ".1%" for share in SHARES},
    )


def _names() -> list[str]:
    return [f"{split}, {what}" for split in ("val", "test") for what in ("clean", "corrupted")]


def _score(data: Dataset, share: float, seed: int, *, quick: bool) -> dict[str, float]:
    import torch

    from fashion.training import recipe

    words = [f"training.seed={seed}", f"augmentation.distort_share={share}"]
    settings = load_train_config(compose([*words, "training.num_epochs=1"] if quick else words))
    started = time.process_time()
    model, _ = recipe.train(settings, data)
    seconds = time.process_time() - started
    model.eval()

    def accuracy(images: Images, split: Split) -> float:
        with torch.inference_mode():
            right = [
                int((model(torch.from_numpy(normalise(part, data.mean, data.std))).argmax(1).numpy() == labels).sum())
                for part, labels in zip(_parts(images), _parts(split.labels), strict=True)
            ]
        return sum(right) / len(split)

    found = {"CPU-s": seconds}
    for name, whole in (("val", data.val), ("test", data.test)):
        chosen = np.linspace(0, len(whole) - 1, min(len(whole), ROWS)).astype(int)
        part = dataclasses.replace(whole, images=whole.images[chosen], labels=whole.labels[chosen])
        of_kind = {
            kind: statistics.mean(accuracy(corrupt(part.images, kind, amount), part) for amount in AMOUNTS)
            for kind in CORRUPTIONS
        }
        found |= {f"{name}, clean": accuracy(whole.images, whole), **of_kind}
        found[f"{name}, corrupted"] = statistics.mean(of_kind.values())
    say(f"share {share:g}, seed {seed}: " + ", ".join(f"{name} {found[name]:.2%}" for name in _names()))
    return found


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), 500):
        yield rows[start : start + 500]


if __name__ == "__main__":
    run_one("robustness")
