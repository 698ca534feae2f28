"""Predict images with a model package on ONNX Runtime. Knows nothing of requests, logs or training."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fashion.images.statistics import statistics
from fashion.images.transform import Images, normalise
from fashion.metrics.calibration import softmax
from fashion.model.package import MODEL, Package

EMBEDDING_SIZE = 16
"""Columns of a logged embedding."""
OUTPUTS = ("logits", "embedding")
"""Outputs of a network, by name."""

Floats = NDArray[np.float32]
Axes = tuple[Floats, Floats]
"""Mean `(D,)` and principal directions `(D, 16)` of embeddings."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of N images, in their order."""

    labels: NDArray[np.int64]
    """(N,) most probable class."""
    confidences: Floats
    """(N,) its calibrated probability."""
    probabilities: Floats
    """(N, classes), calibrated."""
    statistics: Floats
    """(N, 8), columns as in `fashion.images.statistics.STATISTICS`."""
    embeddings: NDArray[np.float16]
    """(N, 16) principal components of the last layer's input; zeros where the network has fewer."""

    def __getitem__(self, rows: Any) -> "Predictions":
        """Some of the rows, by any index that numpy takes for one axis."""
        return Predictions(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


class OnnxNetwork:
    """An exported network: from normalised `(N, C, H, W)` float32 to `(N, classes)` logits and `(N, D)` embeddings."""

    def __init__(self, model: bytes | Path, *, num_threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = num_threads
        options.log_severity_level = 3
        source = model if isinstance(model, bytes) else str(model)
        self._session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Floats, *, batch_size: int = 100) -> tuple[Floats, Floats]:
        if 0 < len(inputs) <= batch_size:
            logits, embeddings = self._session.run(OUTPUTS, {"image": inputs})
            return logits, embeddings
        # Batches of 100: the activations of a small network stay in the processor's cache.
        parts = [
            self._session.run(OUTPUTS, {"image": inputs[start : start + batch_size]})
            for start in range(0, max(len(inputs), 1), batch_size)
        ]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


class Predictor:
    """A model package, loaded for predictions. Can be called from several threads."""

    def __init__(self, package: Package, *, num_threads: int = 1) -> None:
        """
        Args:
            package: one that was written or read.
            num_threads: of ONNX Runtime for one call.

        Raises:
            ValueError: the package is in no folder.
        """
        if package.folder is None:
            raise ValueError("a package must be in a folder before it can predict: write or read it first")
        self.package = package
        self._axes = axes(package)
        self.network = OnnxNetwork(package.folder / MODEL, num_threads=num_threads)

    def predict(self, images: Images) -> Predictions:
        """Predict `(N, H, W)` or `(N, H, W, C)` uint8 images of the package's size.

        Raises:
            ValueError: the images have another size, type or number of channels.
        """
        size = self.package.size
        if images.shape[1:3] != (size, size):
            raise ValueError(f"images must be {size}x{size}, got {images.shape[1:3]}")
        inputs = normalise(images, self.package.mean, self.package.std)
        return interpret(self.package, images, *self.network(inputs), self._axes)


def interpret(
    package: Package, images: Images, logits: Floats, embeddings: Floats, onto: Axes | None = None
) -> Predictions:
    """Turn a network's outputs into predictions.

    Args:
        package: temperature and projection.
        images: `(N, H, W)` or `(N, H, W, C)` uint8.
        logits: `(N, classes)`.
        embeddings: `(N, D)`.
        onto: `axes(package)`, if the caller has it already.
    """
    probabilities = softmax(logits, package.temperature).astype(np.float32)
    labels = probabilities.argmax(axis=1)
    return Predictions(
        labels=labels,
        confidences=probabilities[np.arange(len(labels)), labels],
        probabilities=probabilities,
        statistics=statistics(images),
        embeddings=project(embeddings, onto or axes(package)),
    )


def axes(package: Package) -> Axes:
    """What `project` needs of a package: the mean `(D,)` and directions `(D, 16)`, zero beyond those it has."""
    components = np.asarray(package.embedding_components, np.float32).T
    directions = np.zeros((len(package.embedding_mean), EMBEDDING_SIZE), np.float32)
    directions[:, : components.shape[1]] = components
    return np.asarray(package.embedding_mean, np.float32), directions


def project(embeddings: Floats, onto: Axes) -> NDArray[np.float16]:
    """Project `(N, D)` embeddings onto principal directions: `(N, 16)` float16."""
    mean, directions = onto
    projected: NDArray[np.float16] = ((embeddings - mean) @ directions).astype(np.float16)
    return projected
