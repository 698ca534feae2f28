"""Rows of the log as arrays: what drift counts and tests. Knows no files and no decisions."""

import dataclasses
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.images.statistics import STATISTICS
from fashion.model.predictor import EMBEDDING_SIZE, Predictions
from fashion.predictions.database import Row, UnreadableRow
from fashion.predictions.record import OWN_CLIENTS, UNLABELLED, LoggedPrediction, ModelId


@dataclass(frozen=True, eq=False)
class Batch:
    """N rows of the log; all have the same number of classes."""

    predictions: Predictions
    true_labels: NDArray[np.int64]
    """(N,) from the feedback that counts; UNLABELLED where there is none."""
    times_us: NDArray[np.int64]
    """(N,) microseconds since 1970, UTC."""
    prediction_ids: Sequence[str]
    image_sha256: Sequence[str]
    models: Sequence[ModelId]
    clients: Sequence[str | None] | None = None
    """(N,) opaque tags of the senders, None where a row has none; None where no row has."""
    sources: Sequence[str | None] | None = None
    """(N,) who gave each true label, None where there is none; None where that is not known."""

    def __len__(self) -> int:
        return len(self.times_us)

    def of(self, model: ModelId) -> "Batch":
        """Return the rows of one model."""
        if self.models.count(model) == len(self):
            return self
        return self[[row for row, each in enumerate(self.models) if each == model]]

    def of_others(self) -> "Batch":
        """Return the rows that others sent: not those of OWN_CLIENTS."""
        if self.clients is None or set(OWN_CLIENTS).isdisjoint(self.clients):
            return self
        return self[[row for row, client in enumerate(self.clients) if client not in OWN_CLIENTS]]

    def __getitem__(self, rows: Sequence[int]) -> "Batch":
        return Batch(
            self.predictions[rows],
            self.true_labels[rows],
            self.times_us[rows],
            [self.prediction_ids[row] for row in rows],
            [self.image_sha256[row] for row in rows],
            [self.models[row] for row in rows],
            None if self.clients is None else [self.clients[row] for row in rows],
            None if self.sources is None else [self.sources[row] for row in rows],
        )


def concatenate(batches: Sequence[Batch]) -> Batch:
    """Join batches of the same number of classes."""
    if len(batches) == 1:
        return batches[0]
    parts = [each.predictions for each in batches]
    return Batch(
        Predictions(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in dataclasses.fields(Predictions)
            )
        ),
        np.concatenate([each.true_labels for each in batches]),
        np.concatenate([each.times_us for each in batches]),
        [value for each in batches for value in each.prediction_ids],
        [value for each in batches for value in each.image_sha256],
        [value for each in batches for value in each.models],
        [value for each in batches for value in each.clients or [None] * len(each)],
        [value for each in batches for value in each.sources or [None] * len(each)],
    )


def from_rows(rows: Sequence[Row]) -> Iterator[Batch]:
    """Decode rows of `PredictionLog.row_pages`: a batch for each number of classes.

    Raises:
        UnreadableRow: a row cannot be decoded, or has other statistics or embeddings than this version writes.
    """
    for sizes, group in _by_sizes(rows).items():
        if sizes[1:] != (4 * len(STATISTICS), 2 * EMBEDDING_SIZE):
            raise UnreadableRow(f"prediction {group[0][0]} has other statistics or embeddings than this version writes")
        columns = zip(*group, strict=True)
        ids, _, times, versions, labels, confidences, probabilities, statistics, embeddings, *rest = columns
        sha256, _, clients, names, digests, truth, sources = rest
        try:
            predictions = Predictions(
                np.array(labels, np.int64),
                np.array(confidences, np.float32),
                _decoded(probabilities, "<f4", len(group)),
                _decoded(statistics, "<f4", len(group)),
                _decoded(embeddings, "<f2", len(group)),
            )
            true_labels = np.array([UNLABELLED if label is None else label for label in truth], np.int64)
            models = _models(names, versions, digests)
            yield Batch(predictions, true_labels, np.array(times, np.int64), ids, sha256, models, clients, sources)
        except (TypeError, ValueError) as error:
            raise UnreadableRow(f"predictions {ids[0]} to {ids[-1]}: {error}") from error


def _by_sizes(rows: Sequence[Row]) -> dict[tuple[int, ...], Sequence[Row]]:
    """Rows by the lengths of their three blobs."""
    try:
        lengths = [set(map(len, map(operator.itemgetter(column), rows))) for column in (6, 7, 8)]
        if all(len(each) == 1 for each in lengths):  # as a rule: a million keys take longer than a million rows
            return {tuple(each.pop() for each in lengths): rows}
    except TypeError:
        pass  # the loop finds the row
    by_sizes: dict[tuple[int, ...], list[Row]] = {}
    for row in rows:
        try:
            by_sizes.setdefault((len(row[6]), len(row[7]), len(row[8])), []).append(row)
        except TypeError:
            raise UnreadableRow(f"prediction {row[0]} has no numbers where it should") from None
    return dict(by_sizes)


def _models(*columns: Sequence[Any]) -> Sequence[ModelId]:
    """Models of rows by name, version and digest; an object for each model, not for each row."""
    if all(column.count(column[0]) == len(column) for column in columns):
        return (ModelId(*(column[0] for column in columns)),) * len(columns[0])
    known = {key: ModelId(*key) for key in set(zip(*columns, strict=True))}
    return [known[key] for key in zip(*columns, strict=True)]


def from_logged(rows: Sequence[LoggedPrediction]) -> Iterator[Batch]:
    """Convert logged predictions: a batch for each number of classes."""
    for classes in sorted({len(row.record.probabilities) for row in rows}):
        yield _batch([row for row in rows if len(row.record.probabilities) == classes])


def _batch(rows: Sequence[LoggedPrediction]) -> Batch:
    records = [row.record for row in rows]
    labels = [UNLABELLED if row.true_label is None else row.true_label for row in rows]
    predictions = Predictions(
        labels=np.array([record.label for record in records], np.int64),
        confidences=np.array([record.confidence for record in records], np.float32),
        probabilities=np.array([record.probabilities for record in records], np.float32),
        statistics=_matrix([record.statistics for record in records], len(STATISTICS)),
        embeddings=_matrix([record.embedding for record in records], EMBEDDING_SIZE).astype(np.float16),
    )
    return Batch(
        predictions,
        np.array(labels, np.int64),
        np.array([record.time_us for record in records], np.int64),
        [record.prediction_id for record in records],
        [record.image_sha256 for record in records],
        [record.model for record in records],
        [record.client for record in records],
        [None if row.judgement is None else row.judgement.source for row in rows],
    )


def _decoded(packed: Sequence[bytes], kind: str, rows: int) -> NDArray[Any]:
    return np.frombuffer(b"".join(packed), kind).reshape(rows, -1)


def _matrix(rows: Sequence[Sequence[float]], width: int) -> NDArray[np.float32]:
    """Stack rows of equal length; one of another length becomes NaN, which no test counts."""
    return np.array([row if len(row) == width else [np.nan] * width for row in rows], np.float32).reshape(-1, width)
