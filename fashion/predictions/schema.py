"""Tables of the log, and records to rows and back. Knows SQL, opens no file."""

import struct

from fashion.predictions.database import Row, UnreadableRow
from fashion.predictions.record import OWN_CLIENTS, REVIEW, Feedback, PredictionRecord, pack, unpack
from fashion.predictions.withdrawal import FIELDS, counts_sql

VERSION = 3
"""Version of the tables. A change of CREATE needs a new one, and an entry of MIGRATIONS."""

APPLICATION_ID = 0x46415348
"""Tells this log from other SQLite files: `FASH`."""

_NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"

_SHIPS = "EXISTS (SELECT 1 FROM facts WHERE name = 'destination')"

DROPPED_PICTURES = "CREATE TABLE dropped_pictures (image_sha256 TEXT PRIMARY KEY)"
"""Pictures of rows that were deleted, until it is known whether other rows refer to them."""

EXPORTS = "CREATE TABLE exports (address TEXT PRIMARY KEY)"
"""Files, folders and buckets with copies of rows."""

DECISIONS = (
    """CREATE TABLE decisions (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT, action TEXT NOT NULL, source TEXT, prediction_id TEXT,
        since_us INTEGER NOT NULL, until_us INTEGER NOT NULL, time_us INTEGER NOT NULL, who TEXT NOT NULL,
        reason TEXT NOT NULL)""",
    "CREATE INDEX decisions_by_prediction ON decisions (prediction_id, source)",
)
"""Which feedback counts no more, or again: `fashion.predictions.withdrawal`."""

CREATE = (
    """CREATE TABLE predictions (
        prediction_id TEXT NOT NULL, role TEXT NOT NULL, time_us INTEGER NOT NULL, model_version TEXT NOT NULL,
        label INTEGER NOT NULL, confidence REAL NOT NULL, probabilities BLOB NOT NULL, statistics BLOB NOT NULL,
        embedding BLOB NOT NULL, image_sha256 TEXT NOT NULL, latency_ms REAL NOT NULL, client TEXT,
        model_name TEXT, model_digest TEXT,
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
    DROPPED_PICTURES,
    EXPORTS,
    *DECISIONS,
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

MIGRATIONS = {
    # Rows of before keep NULL: which model they are of was not written down.
    1: (
        "ALTER TABLE predictions ADD COLUMN model_name TEXT",
        "ALTER TABLE predictions ADD COLUMN model_digest TEXT",
        DROPPED_PICTURES,
        EXPORTS,
        "PRAGMA user_version = 2",
    ),
    2: (*DECISIONS, "PRAGMA user_version = 3"),
}
"""Version -> statements that make the next one of it; none may take longer for a log of more rows."""

QUEUE_ALL = (
    f"""INSERT INTO outbox (prediction_id, role, queued_us)
        SELECT prediction_id, role, {_NOW_US} FROM predictions ORDER BY time_us, prediction_id, role""",
    f"""INSERT INTO outbox (prediction_id, role, feedback, queued_us)
        SELECT prediction_id, 'champion', sequence, {_NOW_US} FROM feedback ORDER BY sequence""",
)

_COLUMNS = (
    *("prediction_id", "role", "time_us", "model_version", "label", "confidence", "probabilities", "statistics"),
    *("embedding", "image_sha256", "latency_ms", "client", "model_name", "model_digest"),
)

SELECTED = ", ".join(f"p.{name}" for name in _COLUMNS)
"""Columns of a SELECT from `predictions p`, in the order that `to_record` takes them."""

# ON CONFLICT names its key: INSERT OR IGNORE would also swallow a row that breaks NOT NULL.
INSERT = (
    f"INSERT INTO predictions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (prediction_id, role) DO NOTHING"
)

COUNTS = counts_sql("decisions", "f.time_us", "f.prediction_id")
"""Condition that feedback `f` counts."""

OF_OTHERS = f"(p.client IS NULL OR p.client NOT IN {OWN_CLIENTS})"
"""Condition on `predictions p`: a row that is traffic."""

TRUE_LABEL, LABELLED_BY, JUDGEMENT = (
    f"(SELECT f.{column} FROM feedback f WHERE f.prediction_id = p.prediction_id AND {COUNTS} "
    f"ORDER BY f.source = '{REVIEW}' DESC, f.time_us DESC, f.sequence DESC LIMIT 1)"
    for column in ("true_label", "source", "sequence")
)
"""The label of prediction `p` by the feedback that counts, who gave it, and the feedback's own number."""

DECIDE = f"INSERT INTO decisions ({', '.join(FIELDS)}) VALUES ({', '.join('?' * len(FIELDS))})"
DECIDED = f"SELECT {', '.join(FIELDS)} FROM decisions ORDER BY sequence"

Key = tuple[int, str, str]
"""time_us, prediction_id, role: the order of the log."""


def conditions(role: str | None, model_name: str | None) -> tuple[str, list[str]]:
    """Return the end of a WHERE clause, and its values, for filters that are not None."""
    filters = {"role": role, "model_name": model_name}
    return (
        " ".join(f"AND p.{name} = ?" for name, value in filters.items() if value is not None),
        [value for value in filters.values() if value is not None],
    )


def key_of(record: PredictionRecord) -> Key:
    """Return where a record stands in the log's order."""
    return record.time_us, record.prediction_id, record.role


def to_row(record: PredictionRecord) -> Row:
    """Return the values of INSERT."""
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
        record.model_name,
        record.model_digest,
    )


def to_record(row: Row) -> PredictionRecord:
    """Decode the columns SELECTED.

    Raises:
        UnreadableRow: they are not a valid record.
    """
    values = dict(zip(_COLUMNS, row, strict=True))
    try:
        for name, kind in (("probabilities", "f"), ("statistics", "f"), ("embedding", "e")):
            values[name] = unpack(kind, values[name])
        return PredictionRecord(**values)
    except (TypeError, ValueError, struct.error) as error:
        raise UnreadableRow(f"prediction {row[0]}: {error}") from error


def to_feedback(row: Row) -> Feedback:
    """Decode prediction_id, true_label, source and time_us.

    Raises:
        UnreadableRow: they are not valid feedback.
    """
    try:
        return Feedback(*row)
    except (TypeError, ValueError, AttributeError) as error:
        raise UnreadableRow(f"feedback on {row[0]}: {error}") from error
