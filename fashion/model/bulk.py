"""Predict all pictures of a folder or bucket, and write one Parquet file. Knows no registry and no flow."""

import dataclasses
import functools
import io
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fashion.images import preparation
from fashion.images.errors import BadPicture
from fashion.images.statistics import STATISTICS
from fashion.images.transform import Images
from fashion.model.package import Package
from fashion.model.predictor import Predictions, Predictor
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, BlobUnreadable, Store

SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff")
BATCH_SIZE = 256
"""Pictures that are predicted at once."""
CHUNK_SIZE = 8
"""Pictures that a thread reads and decodes before it takes others: handing over each costs as much as a small one."""
MAX_THREADS = 8
"""That decode: each may hold a picture of 50 million pixels."""


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
    predictor: Predictor,
    store: Store,
    names: Sequence[str],
    *,
    on_progress: Callable[[str], Any],
    num_threads: int | None = None,
) -> BulkPredictions:
    """Predict files; those that are missing, locked or no pictures are listed as unreadable.

    Args:
        predictor: the model.
        store: where the files are, read by several threads.
        names: of the files.
        on_progress: called with a line of text after each batch.
        num_threads: that read and decode; None for one a core, `MAX_THREADS` at most. Predictions do not depend on it.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    parts, unreadable, done = [], dict[str, str](), 0
    read = functools.partial(_read, store, predictor.package)
    with ThreadPoolExecutor(num_threads or min(MAX_THREADS, len(os.sched_getaffinity(0)))) as pool:
        try:
            for batch, found in _read_ahead(pool, read, names):
                readable = [name for name, image in zip(batch, found, strict=True) if not isinstance(image, str)]
                images = [image for image in found if not isinstance(image, str)]
                unreadable |= {name: why for name, why in zip(batch, found, strict=True) if isinstance(why, str)}
                if readable:
                    parts.append(_from_predictions(readable, predictor.predict(np.stack(images))))
                done += len(batch)
                on_progress(f"{done:,}/{len(names):,} files, {len(unreadable):,} could not be read")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return dataclasses.replace(join(parts), unreadable=unreadable)


def _read_ahead(
    pool: ThreadPoolExecutor, read: Callable[[Sequence[str]], list[Images | str]], names: Sequence[str]
) -> Iterator[tuple[Sequence[str], list[Images | str]]]:
    """Yield each batch of names and what was read of it, while the next one is being read."""
    waiting: deque[tuple[Sequence[str], list[Future[list[Images | str]]]]] = deque()
    for start in range(0, len(names), BATCH_SIZE):
        batch = names[start : start + BATCH_SIZE]
        chunks = [batch[first : first + CHUNK_SIZE] for first in range(0, len(batch), CHUNK_SIZE)]
        waiting.append((batch, [pool.submit(read, chunk) for chunk in chunks]))
        if len(waiting) > 1:
            yield _result(*waiting.popleft())
    while waiting:
        yield _result(*waiting.popleft())


def _result(
    batch: Sequence[str], chunks: Sequence[Future[list[Images | str]]]
) -> tuple[Sequence[str], list[Images | str]]:
    return batch, [image for chunk in chunks for image in chunk.result()]


def _read(store: Store, package: Package, names: Sequence[str]) -> list[Images | str]:
    """Images of the network's size, or why a file has none."""
    found: list[Images | str] = []
    for name in names:
        try:
            fitted = preparation.prepare(
                store.get(name), size=package.size, channels=package.channels, preparation=package.preparation
            )
            found.append(fitted.image)
        except BadPicture as error:
            found.append(error.message)
        except BlobNotFound:
            found.append("the file was removed")
        except BlobUnreadable as error:
            found.append(str(error))
    return found


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
