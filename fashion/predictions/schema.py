"""Tables of the log, and records to rows and back. Knows SQL, opens nothing."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.predictions.record import Feedback, PredictionRecord, pack, unpack

SCHEMA = 1


APPLICATION = 0x46415348
"""Tells this log from other SQLite files."""


_NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


_SHIPS = "EXISTS (SELECT 1 FROM facts WHERE name = 'destination')"


CREATE = (
    """CREATE TABLE predictions (
        prediction_id TEXT NOT NULL, role TEXT NOT NULL, time_us INTEGER NOT NULL, model_version TEXT NOT NULL,
        label INTEGER NOT NULL, confidence REAL NOT NULL, probabilities BLOB NOT NULL, statistics BLOB NOT NULL,
        embedding BLOB NOT NULL, image_sha256 TEXT NOT NULL, latency_ms REAL NOT NULL, client TEXT,
        PRIMARY KEY (prediction_id, role)) WITHOUT ROWID""",
    "CREATE INDEX predictions_by_time ON predictions (time_us, prediction_id, role)",
    """CREATE TABLE feedback (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, prediction_id TEXT NOT NULL, true_label INTEGER NOT NULL,
        source TEXT NOT NULL, time_us INTEGER NOT NULL, UNIQUE (prediction_id, time_us, source, true_label))""",
    """CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, prediction_id TEXT NOT NULL, role TEXT NOT NULL,
        feedback INTEGER, queued_us INTEGER NOT NULL, due_us INTEGER NOT NULL DEFAULT 0, refused TEXT)""",
    "CREATE INDEX outbox_by_prediction ON outbox (prediction_id)",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # Triggers, so that no statement can add a row and forget to queue it. A log that ships nowhere queues nothing:
    # the outbox's pages would be half of what each commit writes.
    f"""CREATE TRIGGER queue_prediction AFTER INSERT ON predictions WHEN {_SHIPS} BEGIN
        INSERT INTO outbox (prediction_id, role, queued_us) VALUES (new.prediction_id, new.role, {_NOW_US}); END""",
    f"""CREATE TRIGGER queue_feedback AFTER INSERT ON feedback WHEN {_SHIPS} BEGIN
        INSERT INTO outbox (prediction_id, role, feedback, queued_us)
        VALUES (new.prediction_id, 'champion', new.sequence, {_NOW_US}); END""",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {SCHEMA}",
)


QUEUE_ALL = (
    f"""INSERT INTO outbox (prediction_id, role, queued_us)
        SELECT prediction_id, role, {_NOW_US} FROM predictions ORDER BY time_us, prediction_id, role""",
    f"""INSERT INTO outbox (prediction_id, role, feedback, queued_us)
        SELECT prediction_id, 'champion', sequence, {_NOW_US} FROM feedback ORDER BY sequence""",
)


_COLUMNS = (
    *("prediction_id", "role", "time_us", "model_version", "label", "confidence", "probabilities", "statistics"),
    *("embedding", "image_sha256", "latency_ms", "client"),
)


SELECTED = ", ".join(f"p.{name}" for name in _COLUMNS)


# ON CONFLICT names its key: INSERT OR IGNORE would also swallow a row that breaks NOT NULL.
INSERT = (
    f"INSERT INTO predictions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (prediction_id, role) DO NOTHING"
)


Key = tuple[int, str, str]


Row = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Columns:
    """Rows of the log as arrays; each of N rows."""

    prediction_ids: tuple[str, ...]
    model_versions: tuple[str, ...]
    image_sha256: tuple[str, ...]
    times_us: NDArray[np.int64]
    labels: NDArray[np.int64]
    true_labels: NDArray[np.int64]
    """By the latest feedback; -1 where nobody said."""
    confidences: NDArray[np.float32]
    probabilities: NDArray[np.float32]
    """(N, classes)"""
    statistics: NDArray[np.float32]
    """(N, 8)"""
    embeddings: NDArray[np.float16]
    """(N, 16)"""


class UnreadableRow(Exception):
    """A row is not what was written."""


def conditions(role: str | None, model_version: str | None) -> tuple[str, list[str]]:
    given = {"role": role, "model_version": model_version}
    return (
        " ".join(f"AND p.{name} = ?" for name, value in given.items() if value is not None),
        [value for value in given.values() if value is not None],
    )


def key_of(record: PredictionRecord) -> Key:
    return record.time_us, record.prediction_id, record.role


def to_row(record: PredictionRecord) -> Row:
    return (
        record.prediction_id,
        record.role,
        int(record.time_us),
        record.model_version,
        int(record.label),
        float(record.confidence),
        pack("f", record.probabilities),
        pack("f", record.statistics),
        pack("e", record.embedding),
        record.image_sha256,
        float(record.latency_ms),
        record.client,
    )


def to_record(row: Row) -> PredictionRecord:
    given = dict(zip(_COLUMNS, row, strict=True))
    try:
        for name, kind in (("probabilities", "f"), ("statistics", "f"), ("embedding", "e")):
            given[name] = unpack(kind, given[name])
        return PredictionRecord(**given)
    except (TypeError, ValueError, struct.error) as error:
        raise UnreadableRow(f"prediction {row[0]}: {error}") from error


def to_columns(page: Sequence[Row]) -> Iterator[Columns]:
    """A page's rows as arrays; rows of another number of classes apart."""
    by_shape: dict[tuple[int, int, int], list[Row]] = {}
    for row in page:
        try:
            by_shape.setdefault((len(row[6]), len(row[7]), len(row[8])), []).append(row)
        except TypeError:
            raise UnreadableRow(f"prediction {row[0]} holds no numbers where it should") from None
    for rows in by_shape.values():
        ids, _, times, versions, labels, confidences, probabilities, statistics, embeddings, sha256, _, _, said = zip(
            *rows, strict=True
        )
        try:
            yield Columns(
                ids,
                versions,
                sha256,
                np.array(times, np.int64),
                np.array(labels, np.int64),
                np.array([-1 if label is None else label for label in said], np.int64),
                np.array(confidences, np.float32),
                _joined(probabilities, "<f4", len(rows)),
                _joined(statistics, "<f4", len(rows)),
                _joined(embeddings, "<f2", len(rows)),
            )
        except (TypeError, ValueError) as error:
            raise UnreadableRow(f"predictions {ids[0]} to {ids[-1]}: {error}") from error


def _joined(packed: Sequence[bytes], kind: str, rows: int) -> NDArray[Any]:
    return np.frombuffer(b"".join(packed), kind).reshape(rows, -1)


def to_feedback(row: Row) -> Feedback:
    try:
        return Feedback(*row)
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadableRow(f"feedback on {row[0]}: {error}") from error
