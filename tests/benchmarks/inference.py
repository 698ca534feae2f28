"""Accuracy, calibration, speed and size of the network in float32 and in int8, and the gate's verdict of int8."""

import tempfile
import time
from pathlib import Path

import numpy as np

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.checks import check_dataset
from fashion.data.dataset import Dataset
from fashion.evaluation import gate, scoring
from fashion.images.transform import normalise
from fashion.model import package as packages
from fashion.model.package import MODEL, WEIGHTS, Metric, Package
from fashion.model.predictor import OnnxNetwork, Predictor
from tests.benchmarks.champion import load_package
from tests.benchmarks.measurement import Cell, ServingOptions, Table, fashion_mnist, run_one, say

BATCHES = (1, 8, 64)
CALLS = 300
"""Calls at each batch size, of both in turn."""


def tables(options: ServingOptions) -> list[Table]:
    """Compare a champion with itself in int8."""
    data = fashion_mnist(1000 if options.quick else None)
    plain = load_package(options.home, data, quick=options.quick)
    say("quantising and scoring in int8")
    small = _quantised(plain, data)
    both = {"float32": plain, "int8": small}
    times = _times(both, data, calls=20 if options.quick else CALLS)
    labels = {name: Predictor(each).predict(data.test.images).labels for name, each in both.items()}
    say("asking the gate")
    verdict = gate.judge(plain, small, {"test": data.test}, load_train_config(compose()).gate)
    return [
        Table(
            "The network in float32 and in int8",
            [_row(name, each, float((labels[name] == labels["float32"]).mean())) for name, each in both.items()],
            f"On {len(data.test.labels):,} test pictures, each with its own temperature. Ranges for int8 are from "
            f"{min(1000, len(data.val.labels)):,} validation pictures.",
            {"calibration error %": ".2f", "loss": ".4f", "temperature": ".3f", "labels as in float32 %": ".2f"},
        ),
        Table(
            "Time of a prediction",
            times,
            f"Microseconds a picture from the image in memory to label, probabilities, statistics and embedding; one "
            f"thread, {CALLS} calls of each in turn.",
            {"p50 ratio": ".2f"},
        ),
        Table(
            "The gate's verdict of int8, with float32 as the champion",
            [
                {"check": each.name, "passed": "yes" if each.passed else "NO", "result": each.sentence}
                for each in verdict.checks
            ],
            f"With the default bounds: {'promoted' if verdict.promoted else 'not promoted'}.",
        ),
    ]


def _quantised(plain: Package, data: Dataset) -> Package:
    """The same model in int8, calibrated and scored anew as TrainFlow does it."""
    from fashion.training import export, quantization

    assert plain.folder is not None
    inputs = normalise(data.val.images[: export.COMPARED_ROWS], data.mean, data.std)
    onnx = (plain.folder / MODEL).read_bytes()
    small = quantization.quantize(onnx, inputs)
    before, after = OnnxNetwork(onnx)(inputs)[0], OnnxNetwork(small)(inputs)[0]
    evaluation = scoring.evaluate(
        {
            "onnx": small,
            "weights": (plain.folder / WEIGHTS).read_bytes(),
            "rows": len(inputs),
            "max_difference": float(np.abs(before - after).max()),
            "label_agreement": float((before.argmax(1) == after.argmax(1)).mean()),
            "precision": "int8",
        },
        data,
        check_dataset(data, load_train_config(compose()).data),
        data=load_train_config(compose()).data,
        architecture=plain.architecture,
        training=plain.training,
        lineage=plain.lineage,
    )
    return packages.write(evaluation.package, Path(tempfile.mkdtemp()), evaluation.files)


def _row(name: str, package: Package, agreement: float) -> dict[str, Cell]:
    metrics, folder = package.metrics, package.folder
    assert folder is not None

    def per_cent(metric: Metric) -> str:
        return f"{metric.value:.2%} ({metric.low:.2%} to {metric.high:.2%})"

    return {
        "precision": name,
        "accuracy": per_cent(metrics["test/accuracy"]),
        "calibration error %": 100 * metrics["test/ece"].value,
        "loss": metrics["test/loss"].value,
        "temperature": package.temperature,
        "labels as in float32 %": 100 * agreement,
        "model.onnx kB": (folder / MODEL).stat().st_size / 1000,
    }


def _times(both: dict[str, Package], data: Dataset, *, calls: int) -> list[dict[str, Cell]]:
    predictors = {name: Predictor(package) for name, package in both.items()}
    rows: list[dict[str, Cell]] = []
    for size in BATCHES:
        times: dict[str, list[float]] = {name: [] for name in predictors}
        for call in range(-3, calls):
            first = max(call, 0) * size % (len(data.test.images) - size)
            images = data.test.images[first : first + size]
            for name, predictor in predictors.items():
                started = time.perf_counter()
                predictor.predict(images)
                if call >= 0:
                    times[name].append(1e6 * (time.perf_counter() - started) / size)
        p50 = {name: float(np.median(each)) for name, each in times.items()}
        p95 = {name: float(np.quantile(each, 0.95)) for name, each in times.items()}
        rows.append(
            {
                "pictures at once": size,
                **{f"{name} p50": value for name, value in p50.items()},
                **{f"{name} p95": value for name, value in p95.items()},
                "p50 ratio": p50["float32"] / p50["int8"],
            }
        )
    return rows


if __name__ == "__main__":
    run_one("inference")
