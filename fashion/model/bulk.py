"""Many pictures at once, from a folder or a bucket, to one Parquet file. Knows no registry and no flow."""

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
from fashion.images.transform import Images
from fashion.model.predictor import Predictions, Predictor
from fashion.storage.address import open_store
from fashion.storage.blobs import BlobNotFound, BlobUnreadable, Store

SUFFIXES = (".bmp", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff")
TOGETHER = 256
"""Pictures that are decoded and predicted at once."""


class NothingToPredict(ValueError):
    """An address that holds no pictures."""


@dataclass(frozen=True)
class Result:
    """Predictions of named files, and the files that could not be read."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    confidences: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...]
    statistics: tuple[tuple[float, ...], ...]
    bad: dict[str, str]
    """Name -> why."""


def absolute(address: str) -> str:
    """An address that means the same in any working directory."""
    return address if "://" in address else str(Path(os.path.expanduser(address)).absolute())  # noqa: PTH111


def check_output(address: str) -> None:
    """Refuse an output that could not be written, before anything is predicted.

    Raises:
        ValueError: it does not name a Parquet file.
    """
    if not address.endswith(".parquet"):
        raise ValueError(f"output must name a file that ends in .parquet, got {address!r}")


def find(store: Store) -> tuple[list[str], list[str]]:
    """Names of the files that look like pictures, and of all others; both sorted.

    Raises:
        NothingToPredict: no file looks like one.
        fashion.storage.blobs.StoreUnavailable: the store cannot be listed.
    """
    names, others = list[str](), list[str]()
    for name in sorted(store.list()):
        (names if name.lower().endswith(SUFFIXES) else others).append(name)
    if not names:
        raise NothingToPredict(f"{store.address} holds no pictures; their names end in {', '.join(SUFFIXES)}")
    return names, others


def divide(names: Sequence[str], parts: int) -> list[list[str]]:
    """Names in at most so many parts of nearly equal size, none empty.

    Raises:
        ValueError: parts is not positive.
    """
    if parts < 1:
        raise ValueError(f"workers must be at least 1, got {parts}")
    parts = min(parts, len(names))
    bounds = [len(names) * part // parts for part in range(parts + 1)]
    return [list(names[low:high]) for low, high in itertools.pairwise(bounds)]


def predict(predictor: Predictor, store: Store, names: Sequence[str], *, report: Callable[[str], Any]) -> Result:
    """Predict files, `TOGETHER` at a time; a file that is gone, locked or no picture is listed.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    of = predictor.package
    parts, bad = [], dict[str, str]()
    for start in range(0, len(names), TOGETHER):
        images, good = list[Images](), list[str]()
        for name in names[start : start + TOGETHER]:
            try:
                fitted = preparation.prepare(
                    store.get(name), size=of.size, channels=of.channels, preparation=of.preparation
                )
                images.append(fitted.image)
                good.append(name)
            except BadPicture as error:
                bad[name] = error.message
            except BlobNotFound:
                bad[name] = "it is not there any more"
            except BlobUnreadable as error:
                bad[name] = str(error)
        if good:
            parts.append(_result(good, predictor.predict(np.stack(images))))
        report(f"{min(start + TOGETHER, len(names)):,}/{len(names):,} files, {len(bad):,} could not be read")
    found = joined(parts)
    return Result(**{**vars(found), "bad": bad})


def joined(parts: Sequence[Result]) -> Result:
    """Several results as one, in order."""
    fields = ("names", "labels", "confidences", "probabilities", "statistics")
    together = {name: tuple(value for part in parts for value in getattr(part, name)) for name in fields}
    return Result(**together, bad={name: why for part in parts for name, why in part.bad.items()})


def write(result: Result, address: str, *, class_names: Sequence[str], model_version: int) -> None:
    """Write a result as Parquet: file, label by name, confidence, a column a class, image statistics, version.

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
    columns["model_version"] = pa.array([str(model_version)] * len(result.names), pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    folder, _, name = absolute(address).rpartition("/")
    open_store(folder or "/").put(name, buffer.getvalue())


def counts(result: Result, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """How often each class was predicted."""
    labels = np.bincount(np.asarray(result.labels, np.int64), minlength=len(class_names))
    return [{"class": name, "pictures": f"{labels[label]:,}"} for label, name in enumerate(class_names)]


def _result(names: Sequence[str], found: Predictions) -> Result:
    return Result(
        tuple(names),
        tuple(found.labels.tolist()),
        tuple(found.confidences.tolist()),
        tuple(map(tuple, found.probabilities.tolist())),
        tuple(map(tuple, found.statistics.tolist())),
        {},
    )
