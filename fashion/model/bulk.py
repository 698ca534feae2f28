"""Predict all pictures of a folder or bucket, and write one Parquet file. Knows no registry and no flow."""

import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion.images import preparation
from fashion.images.errors import BadPicture
from fashion.images.statistics import STATISTICS
from fashion.images.threads import in_threads
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictions, Predictor
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, BlobUnreadable, Store

SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff")
BATCH_SIZE = 256
"""Pictures that are decoded and predicted at once."""


class NothingToPredict(ValueError):
    """A folder or bucket without pictures."""


@dataclass(frozen=True)
class BulkPredictions:
    """Predictions of N files, and the files that could not be read."""

    names: tuple[str, ...]
    """(N,)"""
    labels: tuple[int, ...]
    """(N,)"""
    confidences: tuple[float, ...]
    """(N,)"""
    probabilities: tuple[tuple[float, ...], ...]
    """(N, classes)"""
    statistics: tuple[tuple[float, ...], ...]
    """(N, 8), columns as in `fashion.images.statistics.STATISTICS`."""
    unreadable: dict[str, str]
    """Name of a file -> why it could not be read."""


def absolute_address(address: str) -> str:
    """The address with a local path made absolute, so that it does not depend on the working directory."""
    return address if "://" in address else str(Path(os.path.expanduser(address)).absolute())  # noqa: PTH111


def check_output(address: str) -> None:
    """Check that an output address names a Parquet file, before anything is predicted.

    Raises:
        ValueError: it does not.
    """
    if not address.endswith(".parquet"):
        raise ValueError(f"output must name a file that ends in .parquet, got {address!r}")


def find_pictures(store: Store) -> tuple[list[str], list[str]]:
    """Names of the files with a picture's suffix, and of all others; both sorted.

    Raises:
        NothingToPredict: no file has one.
        fashion.storage.blobs.StoreUnavailable: the store cannot be listed.
    """
    names, others = list[str](), list[str]()
    for name in sorted(store.list()):
        (names if name.lower().endswith(SUFFIXES) else others).append(name)
    if not names:
        raise NothingToPredict(f"{store.address} holds no pictures; their names end in {', '.join(SUFFIXES)}")
    return names, others


def split_evenly(names: Sequence[str], parts: int) -> list[list[str]]:
    """Split names into at most `parts` lists of nearly equal length, none empty.

    Raises:
        ValueError: `parts` is not positive.
    """
    if parts < 1:
        raise ValueError(f"workers must be at least 1, got {parts}")
    parts = min(parts, len(names))
    bounds = [len(names) * part // parts for part in range(parts + 1)]
    return [list(names[low:high]) for low, high in itertools.pairwise(bounds)]


def predict(
    predictor: Predictor, store: Store, names: Sequence[str], *, on_progress: Callable[[str], Any]
) -> BulkPredictions:
    """Predict files; those that are missing, locked or no pictures are listed as unreadable.

    Args:
        predictor: the model.
        store: where the files are, read by several threads.
        names: of the files.
        on_progress: called with a line of text after each batch.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    parts, unreadable = [], dict[str, str]()
    read = functools.partial(_read, store, predictor.package)
    for start in range(0, len(names), BATCH_SIZE):
        batch = names[start : start + BATCH_SIZE]
        found = list(zip(batch, in_threads(read, batch), strict=True))
        unreadable |= {name: why for name, why in found if isinstance(why, str)}
        readable = [(name, image) for name, image in found if not isinstance(image, str)]
        if readable:
            readable_names, images = zip(*readable, strict=True)
            parts.append(_from_predictions(readable_names, predictor.predict(np.stack(images))))
        on_progress(f"{start + len(batch):,}/{len(names):,} files, {len(unreadable):,} could not be read")
    return dataclasses.replace(join(parts), unreadable=unreadable)


def _read(store: Store, package: Package, name: str) -> Images | str:
    """A file as an image of the network's size, or why it is none."""
    try:
        fitted = preparation.prepare(
            store.get(name), size=package.size, channels=package.channels, preparation=package.preparation
        )
    except BadPicture as error:
        return error.message
    except BlobNotFound:
        return "the file was removed"
    except BlobUnreadable as error:
        return str(error)
    return fitted.image


def join(parts: Sequence[BulkPredictions]) -> BulkPredictions:
    """The predictions of several parts, in order."""
    fields = ("names", "labels", "confidences", "probabilities", "statistics")
    columns = {name: tuple(value for part in parts for value in getattr(part, name)) for name in fields}
    unreadable = {name: reason for part in parts for name, reason in part.unreadable.items()}
    return BulkPredictions(**columns, unreadable=unreadable)


def write(result: BulkPredictions, address: str, *, class_names: Sequence[str], model: tuple[str, int, str]) -> None:
    """Write Parquet: file, label by name, confidence, a probability for each class, image statistics, the model.

    Args:
        result: the predictions.
        address: of the file.
        class_names: of the model.
        model: name and version in the registry, and the digest of the package.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the output cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "file": pa.array(result.names, pa.string()),
        "label": pa.array([class_names[label] for label in result.labels], pa.string()),
        "confidence": pa.array(result.confidences, pa.float32()),
    }
    for label, name in enumerate(class_names):
        columns[f"probability: {name}"] = pa.array([row[label] for row in result.probabilities], pa.float32())
    for column, name in enumerate(STATISTICS):
        columns[name] = pa.array([row[column] for row in result.statistics], pa.float32())
    for name, value in zip(("model_name", "model_version", "model_digest"), model, strict=True):
        columns[name] = pa.array([str(value)] * len(result.names), pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    folder, _, name = absolute_address(address).rpartition("/")
    open_store(folder or "/").put(name, buffer.getvalue())


def count_classes(result: BulkPredictions, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """How often each class was predicted, as rows of a table."""
    labels = np.bincount(np.asarray(result.labels, np.int64), minlength=len(class_names))
    return [{"class": name, "pictures": f"{labels[label]:,}"} for label, name in enumerate(class_names)]


def _from_predictions(names: Sequence[str], predictions: Predictions) -> BulkPredictions:
    return BulkPredictions(
        tuple(names),
        tuple(predictions.labels.tolist()),
        tuple(predictions.confidences.tolist()),
        tuple(map(tuple, predictions.probabilities.tolist())),
        tuple(map(tuple, predictions.statistics.tolist())),
        {},
    )
