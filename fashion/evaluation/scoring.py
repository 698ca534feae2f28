"""Calibrate an exported network, score it on held-out data, and describe it as a model package.

Runs the network as the service does, on ONNX Runtime. Knows no torch, no registry and no flow.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.config.schema import DataConfig
from fashion.data.checks import DataReport
from fashion.data.dataset import Dataset
from fashion.evaluation.latency import time_predictions
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
from fashion.model import accuracy_calibration
from fashion.model.package import ACCURACY, MODEL, REFERENCE, SETS, TYPICALITY, WEIGHTS, Metric, Package
from fashion.model.prediction_sets import PredictionSets
from fashion.model.predictor import EMBEDDING_SIZE, OnnxNetwork, Predictions, axes, interpret
from fashion.model.reference import Reference
from fashion.model.typicality import Typicality

CAPTIONS = {
    "confusion": "Confusion matrix",
    "per_class": "Per-class scores",
    "reliability": "Reliability diagram",
    "mistakes": "Worst mistakes",
}
"""Name of a figure -> its caption."""
SEED = 0
"""Of the corruptions that the estimate of accuracy is calibrated on."""
TEMPERATURE_PRIOR = 2.0
"""Of a normal distribution of the temperature's logarithm around 0 with standard deviation 0.5: a few validation rows
that are all right do not make a model certain of everything."""
UNLIKE = 0.01
"""Test pictures are counted that are less usual than all but this share of the validation split."""


@dataclass(frozen=True)
class Measurement:
    """A metric as a row of a table."""

    metric: str
    value: float
    low: float | None
    """Lower bound of its 95 % interval; None if none was computed."""
    high: float | None
    """Upper bound of its 95 % interval; None if none was computed."""


@dataclass(frozen=True)
class Evaluation:
    """A scored model, ready to be written and logged."""

    package: Package
    files: dict[str, bytes]
    """Content of the package's files, without the manifest."""
    figures: dict[str, bytes]
    """PNG by name."""
    scores: list[ClassScore]
    """On the test split, one for each class."""
    test: Predictions
    """Of the test split."""

    @property
    def measurements(self) -> list[Measurement]:
        """Every metric with its interval."""
        return [Measurement(name, each.value, each.low, each.high) for name, each in self.package.metrics.items()]

    @property
    def summary(self) -> str:
        """Accuracy and calibration error in one line."""
        metrics = self.package.metrics
        accuracy, deduplicated = metrics["test/accuracy"], metrics.get("test/accuracy_deduplicated")
        without = (
            f"without duplicates {deduplicated.value:.2%}" if deduplicated else "every test image is also in training"
        )
        return (
            f"test accuracy {accuracy.value:.2%} ({accuracy.low:.2%} to {accuracy.high:.2%}), {without}, "
            f"calibration error {metrics['test/ece'].value:.2%}"
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
        dataset: the splits; of the training rows, the number in each class is used alone.
        report: says which test images are also in training.
        data: size, channels and preparation of images.
        architecture: name and arguments of the network, stored in the package.
        training: settings and course of the training, stored in the package.
        lineage: where the model comes from, stored in the package.
    """
    network = OnnxNetwork(exported["onnx"])
    val_logits, val_embeddings = network(normalise(dataset.val.images, dataset.mean, dataset.std))
    test_logits, test_embeddings = network(normalise(dataset.test.images, dataset.mean, dataset.std))
    embedding_mean, components = _principal_components(val_embeddings)
    package = Package(
        class_names=dataset.class_names,
        channels=data.channels,
        size=data.size,
        mean=dataset.mean,
        std=dataset.std,
        temperature=fit_temperature(
            val_logits + _adjustment(dataset, training), dataset.val.labels, prior=TEMPERATURE_PRIOR
        ),
        embedding_mean=embedding_mean,
        embedding_components=components,
        architecture=dict(architecture),
        data={"name": dataset.name, "digest": dataset.digest, "words": dataclasses.asdict(data.words)},
        lineage=dict(lineage),
        training=dict(training),
        metrics={},
        severity=None,
        export_check={key: exported[key] for key in ("rows", "max_difference", "label_agreement")}
        | {"precision": exported.get("precision", "float32")},
        preparation=data.preparation,
    )
    onto = axes(package)

    def predict(images: Images) -> Predictions:
        return interpret(package, images, *network(normalise(images, dataset.mean, dataset.std)), onto)

    val = interpret(package, dataset.val.images, val_logits, val_embeddings, onto)
    test = interpret(package, dataset.test.images, test_logits, test_embeddings, onto)
    reference = Reference(dataset.val.labels, val)
    scores = classification.classification_report(dataset.test.labels, test.labels, dataset.class_names)
    uncalibrated = softmax(test_logits)
    metrics = {
        **_accuracies(dataset, report, val, test),
        **_probability_metrics(dataset.test.labels, test.probabilities, uncalibrated),
        "test/f1_macro": Metric(float(np.mean([score.f1 for score in scores]))),
        "test/recall_macro": Metric(float(np.mean([score.recall for score in scores]))),
        **_latencies(predict, dataset.test.images),
    }
    typicality = Typicality.fit(reference)
    unlike = typicality.shares(typicality.distances(test)) < UNLIKE
    metrics["test/unlike_reference"] = Metric(float(unlike.mean()))
    pools = accuracy_calibration.measure(predict, dataset.val.images, reference, typicality, seed=SEED)
    return Evaluation(
        package=dataclasses.replace(package, metrics=metrics),
        files={
            MODEL: exported["onnx"],
            WEIGHTS: exported["weights"],
            REFERENCE: reference.to_parquet(),
            TYPICALITY: typicality.to_bytes(),
            ACCURACY: pools.fit().to_bytes(),
            SETS: PredictionSets.fit(reference).to_bytes(),
        },
        figures=_figures(dataset, test, uncalibrated, metrics, scores, package.temperature),
        scores=scores,
        test=test,
    )


def _adjustment(dataset: Dataset, training: Mapping[str, Any]) -> NDArray[np.float64]:
    """What turns the logits into those of the data's class shares, `(classes,)`: 0 but for `logit_adjustment`."""
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.class_names))
    shares = np.maximum(counts, 1) / max(1, counts.sum())
    adjusted: NDArray[np.float64] = training.get("config", {}).get("logit_adjustment", 0.0) * np.log(shares)
    return adjusted


def _principal_components(embeddings: NDArray[np.float32]) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
    """Mean and leading principal directions of `(N, D)` embeddings."""
    centred = embeddings.astype(np.float64)
    mean = centred.mean(axis=0)
    centred -= mean
    _, directions = np.linalg.eigh(centred.T @ centred)
    leading = directions[:, ::-1][:, :EMBEDDING_SIZE].T
    # The sign of a direction is arbitrary; with a fixed one, equal trainings give equal packages.
    leading = leading * np.sign(leading[np.arange(len(leading)), np.abs(leading).argmax(axis=1)])[:, None]
    return tuple(mean.round(7).tolist()), tuple(tuple(row) for row in leading.round(7).tolist())


def _accuracies(dataset: Dataset, report: DataReport, val: Predictions, test: Predictions) -> dict[str, Metric]:
    def share(right: NDArray[np.bool_]) -> Metric:
        return Metric(float(right.mean()), *classification.wilson_interval(int(right.sum()), len(right)))

    right = test.labels == dataset.test.labels
    return {
        "val/accuracy": share(val.labels == dataset.val.labels),
        "test/accuracy": share(right),
        # Left out if every test row is also in training.
        **({"test/accuracy_deduplicated": share(clean)} if len(clean := right[~report.test_in_training]) else {}),
    }


def _probability_metrics(
    labels: NDArray[np.int64], probabilities: NDArray[np.floating[Any]], uncalibrated: NDArray[np.floating[Any]]
) -> dict[str, Metric]:
    """Calibration and loss on the test split, of `(N,)` labels and `(N, classes)` probabilities."""
    return {
        "test/ece_uncalibrated": Metric(expected_calibration_error(uncalibrated, labels)),
        "test/ece": Metric(expected_calibration_error(probabilities, labels)),
        "test/loss": Metric(negative_log_likelihood(probabilities, labels)),
        "test/brier": Metric(brier_score(probabilities, labels)),
    }


def _latencies(predict: Callable[[Images], Predictions], images: Images) -> dict[str, Metric]:
    """Milliseconds from one image in memory to its prediction, on one thread."""
    p50, p95 = np.quantile(time_predictions([predict], images), [0.5, 0.95])
    return {"latency_ms/p50": Metric(float(p50)), "latency_ms/p95": Metric(float(p95))}


def _figures(
    dataset: Dataset,
    test: Predictions,
    uncalibrated: NDArray[np.float64],
    metrics: Mapping[str, Metric],
    scores: list[ClassScore],
    temperature: float,
) -> dict[str, bytes]:
    labels, names = dataset.test.labels, dataset.class_names
    figures = {
        "confusion": charts.confusion(classification.confusion_matrix(labels, test.labels, len(names)), names),
        "per_class": charts.per_class(scores),
        "reliability": charts.reliability(
            reliability_bins(uncalibrated, labels),
            reliability_bins(test.probabilities, labels),
            ece_before=metrics["test/ece_uncalibrated"].value,
            ece_after=metrics["test/ece"].value,
            temperature=temperature,
        ),
        "mistakes": galleries.mistakes(dataset.test.images, labels, test.labels, test.probabilities, names),
    }
    return {name: frame.to_png(figure) for name, figure in figures.items()}
