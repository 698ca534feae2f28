"""Score an exported network on held-out data, calibrate it, and pack it. No torch: what is scored is what serves."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.schema import DataConfig
from fashion.data.checks import DataReport
from fashion.data.dataset import Dataset
from fashion.figures import charts, frame, galleries
from fashion.images.transform import Images, normalise
from fashion.metrics import classification
from fashion.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability_bins,
    softmax,
)
from fashion.metrics.classification import ClassScore
from fashion.model import severity
from fashion.model.package import MODEL, REFERENCE, WEIGHTS, Metric, Package
from fashion.model.predictor import EMBEDDING_SIZE, OnnxNetwork, Predictions, axes, interpret
from fashion.model.reference import Reference

CAPTIONS = {
    "confusion": "Confusion matrix",
    "per_class": "Per-class scores",
    "reliability": "Reliability diagram",
    "mistakes": "The worst mistakes",
}
"""Name of a figure -> a heading for it."""
LATENCY_CALLS = 200
SEED = 0
"""Of the windows that severity is calibrated on."""


@dataclass(frozen=True)
class Measurement:
    """A metric by its name, for a table."""

    metric: str
    value: float
    low: float | None
    """Of its 95 % interval, where one was computed."""
    high: float | None


@dataclass(frozen=True)
class Evaluation:
    """A scored model, ready to be written and logged."""

    package: Package
    files: dict[str, bytes]
    """The package's files but its manifest."""
    figures: dict[str, bytes]
    """PNG by name."""
    scores: list[ClassScore]
    """On the test split, by class."""
    test: Predictions

    @property
    def measurements(self) -> list[Measurement]:
        """Every metric with its interval."""
        return [Measurement(name, each.value, each.low, each.high) for name, each in self.package.metrics.items()]

    @property
    def summary(self) -> str:
        """One line on how good it is."""
        found = self.package.metrics
        accuracy, clean = found["test/accuracy"], found.get("test/accuracy_deduplicated")
        without = f"without duplicates {clean.value:.2%}" if clean else "every test image is also in training"
        return (
            f"test accuracy {accuracy.value:.2%} ({accuracy.low:.2%} to {accuracy.high:.2%}), {without}, "
            f"calibration error {found['test/ece'].value:.2%}"
        )


def evaluate(
    exported: Mapping[str, Any],
    dataset: Dataset,
    report: DataReport,
    *,
    data: DataConfig,
    architecture: Mapping[str, Any],
    training: Mapping[str, Any],
    lineage: Mapping[str, Any],
) -> Evaluation:
    """Calibrate on the validation split, score on the test split, and take the validation split as reference.

    Args:
        exported: fields of `fashion.training.export.Exported`.
        report: tells which test images are also in training.
        architecture: what was built, for the package.
        training: how, likewise.
        lineage: from what, likewise.
    """
    network = OnnxNetwork(exported["onnx"])
    val_logits, val_embeddings = network(normalise(dataset.val.images, dataset.mean, dataset.std))
    test_logits, test_embeddings = network(normalise(dataset.test.images, dataset.mean, dataset.std))
    temperature = fit_temperature(val_logits, dataset.val.labels)
    embedding_mean, components = _principal(val_embeddings)
    package = Package(
        class_names=dataset.class_names,
        channels=data.channels,
        size=data.size,
        mean=dataset.mean,
        std=dataset.std,
        temperature=temperature,
        embedding_mean=embedding_mean,
        embedding_components=components,
        architecture=dict(architecture),
        data={"name": dataset.name, "digest": dataset.digest},
        lineage=dict(lineage),
        training=dict(training),
        metrics={},
        severity=None,
        export_check={key: exported[key] for key in ("rows", "max_difference", "label_agreement")},
        preparation=data.preparation,
    )
    val = interpret(package, dataset.val.images, val_logits, val_embeddings)
    test = interpret(package, dataset.test.images, test_logits, test_embeddings)

    def predict(images: Images) -> Predictions:
        return interpret(package, images, *network(normalise(images, dataset.mean, dataset.std)))

    scores = classification.classification_report(dataset.test.labels, test.labels, dataset.class_names)
    uncalibrated = softmax(test_logits)
    measured = {
        **_accuracies(dataset, report, val, test),
        "test/ece_uncalibrated": Metric(expected_calibration_error(uncalibrated, dataset.test.labels)),
        "test/ece": Metric(expected_calibration_error(test.probabilities, dataset.test.labels)),
        "test/loss": Metric(negative_log_likelihood(test.probabilities, dataset.test.labels)),
        "test/brier": Metric(brier_score(test.probabilities, dataset.test.labels)),
        "test/f1_macro": Metric(float(np.mean([score.f1 for score in scores]))),
        **_latency(package, network, dataset.test.images),
    }
    reference = Reference(dataset.val.labels, val)
    thresholds = severity.calibrate(predict, dataset.val.images, reference, seed=SEED)
    return Evaluation(
        package=dataclasses.replace(package, metrics=measured, severity=thresholds),
        files={MODEL: exported["onnx"], WEIGHTS: exported["weights"], REFERENCE: reference.to_parquet()},
        figures=_figures(dataset, test, uncalibrated, measured, scores, temperature),
        scores=scores,
        test=test,
    )


def _principal(embeddings: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Mean and leading principal directions of `(N, D)` embeddings."""
    centred = embeddings.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    _, directions = np.linalg.eigh(centred.T @ centred)
    leading = directions[:, ::-1][:, :EMBEDDING_SIZE].T
    # The sign of a direction is arbitrary; a fixed one makes equal trainings equal packages.
    leading = leading * np.sign(leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)])[:, None]
    return tuple(mean.round(7).tolist()), tuple(tuple(row) for row in leading.round(7).tolist())


def _accuracies(dataset: Dataset, report: DataReport, val: Predictions, test: Predictions) -> dict[str, Metric]:
    def share(right: NDArray[np.bool_]) -> Metric:
        return Metric(float(right.mean()), *classification.wilson_interval(int(right.sum()), len(right)))

    right = test.labels == dataset.test.labels
    return {
        "val/accuracy": share(val.labels == dataset.val.labels),
        "test/accuracy": share(right),
        # Where training holds every test row there is no such score, and the standard one means little.
        **({"test/accuracy_deduplicated": share(clean)} if len(clean := right[~report.test_in_training]) else {}),
    }


def _latency(package: Package, network: OnnxNetwork, images: Images) -> dict[str, Metric]:
    """Milliseconds from one image at rest to its prediction as the package gives it, on one thread."""
    taken, onto = [], axes(package)
    for index in range(LATENCY_CALLS):
        image = images[index % len(images)][None]
        started = time.perf_counter()
        interpret(package, image, *network(normalise(image, package.mean, package.std)), onto)
        taken.append(1000 * (time.perf_counter() - started))
    p50, p95 = np.quantile(taken, [0.5, 0.95])
    return {"latency_ms/p50": Metric(float(p50)), "latency_ms/p95": Metric(float(p95))}


def _figures(
    dataset: Dataset,
    test: Predictions,
    uncalibrated: NDArray[np.float64],
    measured: Mapping[str, Metric],
    scores: list[ClassScore],
    temperature: float,
) -> dict[str, bytes]:
    labels, names = dataset.test.labels, dataset.class_names
    drawn = {
        "confusion": charts.confusion(classification.confusion_matrix(labels, test.labels, len(names)), names),
        "per_class": charts.per_class(scores),
        "reliability": charts.reliability(
            reliability_bins(uncalibrated, labels),
            reliability_bins(test.probabilities, labels),
            ece_before=measured["test/ece_uncalibrated"].value,
            ece_after=measured["test/ece"].value,
            temperature=temperature,
        ),
        "mistakes": galleries.mistakes(dataset.test.images, labels, test.labels, test.probabilities, names),
    }
    return {name: frame.to_png(figure) for name, figure in drawn.items()}
