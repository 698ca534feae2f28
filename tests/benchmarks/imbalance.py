"""Classes of 500, 100 and 20 training pictures: what is right with and without `training.logit_adjustment`."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Dataset, Split
from fashion.images.transform import Images, normalise
from fashion.metrics.calibration import fit_temperature, softmax
from fashion.metrics.classification import classification_report
from tests.benchmarks.measurement import Cell, Options, Spread, Table, fashion_mnist, run_one, say

SIZES = (*(500,) * 4, *(100,) * 3, *(20,) * 3)
"""Training pictures of each class, which the seed deals out; a quarter of them more for validation."""
ADJUSTMENTS = (0.0, 0.5, 1.0)
BINS = 15


def tables(options: Options) -> Iterator[Table]:
    """Train with each adjustment and each seed, and score all test rows, weighted to the shares that are meant."""
    data = fashion_mnist(2000 if options.quick else None)
    sizes = tuple(max(4, size // 10) for size in SIZES) if options.quick else SIZES
    rows: list[dict[str, Cell]] = []
    for adjustment in ADJUSTMENTS:
        scores = [_score(data, sizes, adjustment, seed, quick=options.quick) for seed in options.seeds]
        rows.append(
            {
                "logit_adjustment": f"{adjustment:g}",
                **{name: Spread(tuple(score[name] for score in scores)) for name in scores[0]},
            }
        )
    yield Table(
        "Imbalance",
        rows,
        f"Fashion-MNIST with {', '.join(map(str, sizes))} training pictures, the default recipe, "
        f"{len(options.seeds)} seeds. Median (range). Macro recall is the mean over the classes, worst the lowest of "
        "them. Accuracy is that of pictures with the training split's class shares, on all test rows, weighted. The "
        "calibration errors are those of pictures with these shares, and of equally frequent classes.",
        dict.fromkeys(("macro recall", "worst", "accuracy", "error, shares", "error, equal"), ".1%"),
    )


def _score(data: Dataset, sizes: tuple[int, ...], adjustment: float, seed: int, *, quick: bool) -> dict[str, float]:
    import torch

    from fashion.training import recipe

    rng = np.random.default_rng(seed)
    counts = rng.permutation(sizes)
    few = dataclasses.replace(
        data, train=_cut(data.train, counts, rng), val=_cut(data.val, np.maximum(counts // 4, 3), rng)
    )
    words = [f"training.seed={seed}", f"training.logit_adjustment={adjustment}"]
    model, _ = recipe.train(load_train_config(compose([*words, "data.limit=1000"] if quick else words)), few)
    model.eval()

    def logits_of(images: Images) -> NDArray[np.float64]:
        with torch.inference_mode():
            pieces = [
                model(torch.from_numpy(normalise(images[start : start + 500], data.mean, data.std))).numpy()
                for start in range(0, len(images), 500)
            ]
        return np.concatenate(pieces).astype(np.float64)

    shares, labels = counts / counts.sum(), data.test.labels
    temperature = fit_temperature(logits_of(few.val.images) + adjustment * np.log(shares), few.val.labels, prior=2.0)
    probabilities = softmax(logits_of(data.test.images), temperature)
    guesses = probabilities.argmax(axis=1)
    recalls = [score.recall for score in classification_report(labels, guesses, data.class_names)]
    say(f"adjustment {adjustment:g}, seed {seed}: macro recall {np.mean(recalls):.1%}")
    weights = shares[labels] / np.bincount(labels)[labels]
    return {
        "macro recall": float(np.mean(recalls)),
        "worst": min(recalls),
        "accuracy": float(np.dot(recalls, shares)),
        "error, shares": _calibration_error(probabilities, labels, weights),
        "error, equal": _calibration_error(probabilities, labels, np.full(len(labels), 1 / len(labels))),
    }


def _cut(split: Split, counts: NDArray[np.int64], rng: np.random.Generator) -> Split:
    """Some rows of each class."""
    rows = [rng.permutation(np.flatnonzero(split.labels == label))[:count] for label, count in enumerate(counts)]
    chosen = np.concatenate(rows)
    return Split(split.images[chosen], split.labels[chosen])


def _calibration_error(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64]
) -> float:
    """The expected calibration error of weighted rows; the weights sum to 1."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.clip((confidence * BINS).astype(int), 0, BINS - 1)
    return float(np.abs(np.bincount(bins, weights * (right - confidence), minlength=BINS)).sum())


if __name__ == "__main__":
    run_one("imbalance")
