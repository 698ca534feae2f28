"""Windows that people accepted as the new normal: their pictures take the place of a version's held-out rows.

Only what is compared changes: accuracy is still compared with the held-out rows, for accepted ones have no true labels.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.drift.comparison import MIN_WORTH
from fashion.drift.decision import readable
from fashion.drift.distinct import Origins, smallest_pictures
from fashion.drift.result import FAMILIES
from fashion.drift.window_part import Sample
from fashion.model.predictor import Predictions
from fashion.predictions.batch import Batch
from fashion.predictions.hashing import hash_text
from fashion.predictions.record import DIGEST_DIGITS, ModelId
from fashion.storage.blobs import BlobNotFound, Store

FOLDER = "state/accepted"
MAX_ROWS = 10_000
"""Distinct pictures of all accepted windows of a version together; sampled at random if there are more."""
FIELDS = ("labels", "confidences", "probabilities", "statistics", "embeddings")


class DamagedRows(ValueError):
    """Accepted rows cannot be read. The message is one sentence with the remedy."""


@dataclass(frozen=True, eq=False)
class Accepted:
    """Rows of accepted windows of one version."""

    predictions: Predictions
    """N rows, one of each picture."""
    keys: NDArray[np.uint64]
    """(N,) hashes of the predictions' ids, by which one can be forgotten."""
    pictures: NDArray[np.uint64]
    """(N,) hashes of the rows' pictures; `keys` in files of earlier versions, which did not hold them."""
    reports: tuple[str, ...]
    """Ids of the accepted reports, in the order in which they were accepted."""
    images: NDArray[np.str_]
    """(N,) sha256 of the rows' pictures; empty strings in files of earlier versions, which did not hold them."""
    origin: str = ""
    """File of the version that the rows were accepted of, where a later one predicted them anew; else empty."""

    def __getitem__(self, rows: NDArray[np.int64]) -> "Accepted":
        predictions, images = self.predictions[rows], self.images[rows]
        return Accepted(predictions, self.keys[rows], self.pictures[rows], self.reports, images, self.origin)


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
    found = _read(_name(model), content)
    return found if len(found.keys) else None


def is_decided(store: Store, model: ModelId) -> bool:
    """Return True if rows of a version were accepted, or that was undone.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be read.
    """
    return store.exists(_name(model))


def carry(store: Store, before: Accepted, predictions: Predictions, *, origin: ModelId, model: ModelId) -> Accepted:
    """Store rows that were accepted of one version as those of another, and return them.

    Args:
        store: of the reports.
        before: N rows of the one.
        predictions: of the other on the same N pictures.
        origin: the one.
        model: the other.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be written.
    """
    rows = dataclasses.replace(before, predictions=predictions, origin=before.origin or _name(origin))
    _store(store, _name(model), rows)
    return rows


def refusal(result: Mapping[str, Any]) -> str:
    """Why a window is no sample of the traffic to come, as the end of a sentence; empty where it can be accepted.

    Args:
        result: of its report, as from `fashion.drift.result.result_as_dict`.
    """
    if result["decision"] == "insufficient_data":
        return f"cannot be accepted, for its window was not judged: {result['reason']}"
    traffic = result.get("traffic")
    if traffic is not None and traffic["worth"] < MIN_WORTH:
        return (
            f"cannot be accepted: the pictures of its {traffic['clients']:,} clients are worth only "
            f"{traffic['worth']:,.0f} independent ones, and {MIN_WORTH} are needed, for other clients will follow"
        )
    return ""


def num_classes(result: Mapping[str, Any]) -> int:
    """Classes of the version that a result which is not refused is about."""
    return sum(column["family"] == FAMILIES[1] for column in result["columns"])


def accept(
    store: Store, model: ModelId, report_id: str, batches: Iterable[Batch], *, classes: int, min_pictures: int
) -> Accepted:
    """Add the rows of a window to what was accepted of a version: those that the decision counts, one of each picture.

    Args:
        store: of the reports.
        model: the version.
        report_id: of the report on the window.
        batches: rows of the window; those of other versions, those that cannot be read, and those that this project
            itself sent are left out.
        classes: of the version.
        min_pictures: distinct pictures that the window must have.

    Raises:
        DamagedRows: what was accepted before cannot be read.
        ValueError: the window has too few pictures of the version.
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    before = load(store, model)
    sample = Sample(MAX_ROWS)
    for batch in batches:
        mine = batch.of_others().of(model)
        usable = mine[np.flatnonzero(readable(mine.predictions, classes)).tolist()]
        origins = Origins.of(usable.prediction_ids, usable.image_sha256, usable.clients or [None] * len(usable))
        sample.add(usable, origins.pictures, origins.rows)
    rows = sample.rows()
    found = 0 if rows is None else len(rows)
    if rows is None or found < min(min_pictures, MAX_ROWS):
        raise ValueError(
            f"the log holds {found:,} distinct pictures of {model} in the window of report {report_id}: "
            f"{min_pictures:,} are needed"
        )
    images = np.array(rows.image_sha256)
    accepted = Accepted(rows.predictions, sample.keys, sample.pictures, (report_id,), images)
    if before is not None:
        accepted = _merge(before, accepted)
    _store(store, _name(model), accepted)
    return accepted


def withdraw(store: Store, model: ModelId) -> bool:
    """Return to the held-out rows of a version, and of those that its rows were carried over to.

    An empty file stays, so that nothing is carried over to it.

    Returns:
        False if nothing was accepted.

    Raises:
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    try:
        there = load(store, model) is not None
    except DamagedRows:
        there = True
    if not there:
        return False
    _store(store, _name(model), _nothing())
    for name in list(store.list(FOLDER)):
        with contextlib.suppress(DamagedRows):
            if _read(name, store.get(name)).origin == _name(model):
                store.delete(name)
    return True


def forget(store: Store, prediction_id: str, *, dry_run: bool = False) -> int:
    """Delete a prediction from all that was accepted, and return from how many versions.

    Args:
        store: of the reports.
        prediction_id: of the row.
        dry_run: delete nothing.

    Raises:
        DamagedRows: accepted rows cannot be read.
        fashion.storage.blobs.StoreUnavailable: the store cannot be used.
    """
    found = 0
    for name in list(store.list(FOLDER)):
        accepted = _read(name, store.get(name))
        others = np.flatnonzero(accepted.keys != np.uint64(hash_text(prediction_id)))
        if len(others) == len(accepted.keys):
            continue
        found += 1
        if not dry_run:
            _store(store, name, accepted[others])
    return found


def _name(model: ModelId) -> str:
    safe = re.sub(r"[^A-Za-z0-9_-]", "-", f"{model.name}-v{model.version}")[:80]
    return f"{FOLDER}/{safe}-{(model.digest or '')[:DIGEST_DIGITS]}.npz"


def _read(name: str, content: bytes) -> Accepted:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            predictions = Predictions(*(arrays[field] for field in FIELDS))
            keys, reports = arrays["keys"], tuple(arrays["reports"].tolist())
            images = arrays.get("images", np.full(len(keys), ""))
            origin = str(arrays.get("origin", ""))
            return Accepted(predictions, keys, arrays.get("pictures", keys), reports, images, origin)
    except Exception as error:  # numpy and zipfile raise many kinds
        raise DamagedRows(
            f"the accepted rows {name} are damaged ({type(error).__name__}): `fashion drift accept REPORT --undo` "
            "removes them"
        ) from None


def _merge(before: Accepted, window: Accepted) -> Accepted:
    """One row of each picture of both, sampled where there are too many."""
    parts = [before, window[np.flatnonzero(~np.isin(window.keys, before.keys))]]
    columns = ([getattr(part.predictions, field) for part in parts] for field in FIELDS)
    predictions = Predictions(*map(np.concatenate, columns))
    keys, pictures, images = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "pictures", "images")
    )
    reports = (*(each for each in before.reports if each not in window.reports), *window.reports)
    return Accepted(predictions, keys, pictures, reports, images)[smallest_pictures(pictures, keys, MAX_ROWS)]


def _nothing() -> Accepted:
    rows, keys = np.zeros((0, 0), np.float32), np.zeros(0, np.uint64)
    predictions = Predictions(np.zeros(0, np.int64), np.zeros(0, np.float32), rows, rows, rows.astype(np.float16))
    return Accepted(predictions, keys, keys, (), np.zeros(0, np.str_))


def _store(store: Store, name: str, accepted: Accepted) -> None:
    content = io.BytesIO()
    arrays = {field: getattr(accepted.predictions, field) for field in FIELDS}
    arrays |= {name: getattr(accepted, name) for name in ("keys", "pictures", "images")}
    reports = np.array(accepted.reports, np.str_)
    np.savez_compressed(content, **arrays, reports=reports, origin=np.array(accepted.origin))
    store.put(name, content.getvalue())
