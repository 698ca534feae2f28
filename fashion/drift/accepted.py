"""Windows that people accepted as the new normal: their pictures take the place of a version's held-out rows.

Only what is compared changes: accuracy is still compared with the held-out rows, for accepted ones have no true labels.
"""

import hashlib
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.distinct import Origins
from fashion.drift.window_part import Sample
from fashion.model.predictor import Predictions
from fashion.predictions.batch import Batch
from fashion.predictions.record import DIGEST_DIGITS, ModelId
from fashion.storage.blobs import BlobNotFound, Store

FOLDER = "state/accepted"
MAX_ROWS = 10_000
"""Of all accepted windows of a version together; sampled at random if there are more."""
FIELDS = ("labels", "confidences", "probabilities", "statistics", "embeddings")


class DamagedRows(ValueError):
    """Accepted rows cannot be read. The message is one sentence with the remedy."""


@dataclass(frozen=True, eq=False)
class Accepted:
    """Rows of accepted windows of one version."""

    predictions: Predictions
    """N rows."""
    keys: NDArray[np.uint64]
    """(N,) hashes of the predictions' ids, by which one can be forgotten."""
    reports: tuple[str, ...]
    """Ids of the accepted reports, in the order in which they were accepted."""


def load(store: Store, model: ModelId) -> Accepted | None:
    """What was accepted of a version; None if nothing was.

    Args:
        store: of the reports.
        model: the version.

    Raises:
        DamagedRows: the file cannot be read.
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    try:
        content = store.get(_name(model))
    except BlobNotFound:
        return None
    return _read(_name(model), content)


def accept(store: Store, model: ModelId, report_id: str, batches: Iterable[Batch]) -> Accepted:
    """Add the rows of a window to what was accepted of a version.

    Args:
        store: of the reports.
        model: the version.
        report_id: of the report on the window.
        batches: rows of the window; those of other versions, and those with NaN or infinity, are left out.

    Raises:
        DamagedRows: what was accepted before cannot be read.
        ValueError: the window has no rows of the version.
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    before = load(store, model)
    sample = Sample(MAX_ROWS)
    for batch in batches:
        mine = batch.of(model)
        good = np.flatnonzero(np.isfinite(_matrix(mine.predictions)).all(axis=1))
        usable = mine[good.tolist()]
        origins = Origins.of(usable.prediction_ids, usable.image_sha256, usable.clients or [None] * len(usable))
        sample.add(usable, origins.pictures, origins.rows)
    rows = sample.rows()
    if rows is None:
        raise ValueError(f"the log holds no rows of {model} in the window of report {report_id}")
    predictions, keys = rows.predictions, _keys(rows)
    reports: tuple[str, ...] = (report_id,)
    if before is not None:
        new = ~np.isin(keys, before.keys)
        predictions = _concatenate(before.predictions, predictions[np.flatnonzero(new)])
        keys = np.concatenate([before.keys, keys[new]])
        reports = (*(each for each in before.reports if each != report_id), report_id)
    smallest = np.argsort(keys, kind="stable")[:MAX_ROWS]
    accepted = Accepted(predictions[smallest], keys[smallest], reports)
    _store(store, _name(model), accepted)
    return accepted


def withdraw(store: Store, model: ModelId) -> bool:
    """Return to the held-out rows of a version; False if nothing was accepted.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    there = store.exists(_name(model))
    store.delete(_name(model))
    return there


def forget(store: Store, prediction_id: str) -> int:
    """Delete a prediction from all that was accepted, and return from how many versions.

    Raises:
        DamagedRows: accepted rows cannot be read.
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    found = 0
    for name in list(store.list(FOLDER)):
        accepted = _read(name, store.get(name))
        others = np.flatnonzero(accepted.keys != _key(prediction_id))
        if len(others) < len(accepted.keys):
            found += 1
            _store(store, name, Accepted(accepted.predictions[others], accepted.keys[others], accepted.reports))
    return found


def _name(model: ModelId) -> str:
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", f"{model.name}-v{model.version}")[:80]
    return f"{FOLDER}/{safe}-{(model.digest or '')[:DIGEST_DIGITS]}.npz"


def _read(name: str, content: bytes) -> Accepted:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            predictions = Predictions(*(arrays[field] for field in FIELDS))
            return Accepted(predictions, arrays["keys"], tuple(arrays["reports"].tolist()))
    except Exception as error:  # numpy and zipfile raise many kinds
        raise DamagedRows(
            f"the accepted rows {name} are damaged ({type(error).__name__}): `fashion drift accept REPORT --undo` "
            "removes them"
        ) from None


def _key(prediction_id: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(prediction_id.encode(), digest_size=8).digest()))


def _keys(rows: Batch) -> NDArray[np.uint64]:
    return np.array([_key(each) for each in rows.prediction_ids], np.uint64)


def _matrix(rows: Predictions) -> NDArray[np.float64]:
    parts: list[NDArray[np.floating[Any]]] = [
        rows.statistics,
        rows.probabilities,
        rows.embeddings,
        rows.confidences[:, None],
    ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _concatenate(first: Predictions, second: Predictions) -> Predictions:
    return Predictions(
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.confidences, second.confidences]),
        np.concatenate([first.probabilities, second.probabilities]),
        np.concatenate([first.statistics, second.statistics]),
        np.concatenate([first.embeddings, second.embeddings]),
    )


def _store(store: Store, name: str, accepted: Accepted) -> None:
    content = io.BytesIO()
    arrays = {field: getattr(accepted.predictions, field) for field in FIELDS}
    np.savez_compressed(content, **arrays, keys=accepted.keys, reports=np.array(accepted.reports))
    store.put(name, content.getvalue())
