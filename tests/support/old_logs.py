"""Prediction logs as earlier versions of this program made them: the SQL of then, which nothing may change now."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import psycopg

from fashion.predictions import postgres_schema, schema
from fashion.predictions.record import Feedback, PredictionRecord

_NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
_SHIPS = "EXISTS (SELECT 1 FROM facts WHERE name = 'destination')"

SQLITE_1 = f"""
CREATE TABLE predictions (
    prediction_id TEXT NOT NULL, role TEXT NOT NULL, time_us INTEGER NOT NULL, model_version TEXT NOT NULL,
    label INTEGER NOT NULL, confidence REAL NOT NULL, probabilities BLOB NOT NULL, statistics BLOB NOT NULL,
    embedding BLOB NOT NULL, image_sha256 TEXT NOT NULL, latency_ms REAL NOT NULL, client TEXT,
    PRIMARY KEY (prediction_id, role)) WITHOUT ROWID;
CREATE INDEX predictions_by_time ON predictions (time_us, prediction_id, role);
CREATE TABLE feedback (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, prediction_id TEXT NOT NULL, true_label INTEGER NOT NULL,
    source TEXT NOT NULL, time_us INTEGER NOT NULL, UNIQUE (prediction_id, time_us, source, true_label));
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, prediction_id TEXT NOT NULL, role TEXT NOT NULL,
    feedback INTEGER, queued_us INTEGER NOT NULL, due_us INTEGER NOT NULL DEFAULT 0, refused TEXT);
CREATE INDEX outbox_by_prediction ON outbox (prediction_id);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TRIGGER queue_prediction AFTER INSERT ON predictions WHEN {_SHIPS} BEGIN
    INSERT INTO outbox (prediction_id, role, queued_us) VALUES (new.prediction_id, new.role, {_NOW_US}); END;
CREATE TRIGGER queue_feedback AFTER INSERT ON feedback WHEN {_SHIPS} BEGIN
    INSERT INTO outbox (prediction_id, role, feedback, queued_us)
    VALUES (new.prediction_id, 'champion', new.sequence, {_NOW_US}); END;
PRAGMA application_id = 1178686280;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
"""Of commits 8e64e67 to 4dcf6ea."""

POSTGRES_1 = """
CREATE SCHEMA prediction_log;
CREATE TABLE prediction_log.predictions (
    prediction_id uuid NOT NULL, role text NOT NULL CHECK (role IN ('champion', 'shadow')),
    time timestamptz NOT NULL, model_version text NOT NULL, label integer NOT NULL,
    confidence double precision NOT NULL, probabilities real[] NOT NULL, statistics real[] NOT NULL,
    embedding bytea NOT NULL, image_sha256 text NOT NULL, latency_ms double precision NOT NULL, client text,
    expire_at timestamptz, labelled boolean NOT NULL DEFAULT false,
    PRIMARY KEY (prediction_id, role));
CREATE INDEX predictions_by_time ON prediction_log.predictions (time, prediction_id, role);
CREATE INDEX predictions_labelled ON prediction_log.predictions (time, prediction_id) WHERE labelled;
CREATE INDEX predictions_expiring ON prediction_log.predictions (expire_at) WHERE expire_at IS NOT NULL;
CREATE TABLE prediction_log.feedback (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, prediction_id uuid NOT NULL,
    role text NOT NULL DEFAULT 'champion' CHECK (role = 'champion'), true_label integer NOT NULL,
    source text NOT NULL, time timestamptz NOT NULL, UNIQUE (prediction_id, time, source, true_label),
    FOREIGN KEY (prediction_id, role) REFERENCES prediction_log.predictions ON DELETE CASCADE);
CREATE TABLE prediction_log.version (version integer NOT NULL);
INSERT INTO prediction_log.version VALUES (1);
"""
"""Of commit 4dcf6ea."""

OF_LATER = ("model_name", "model_digest")
"""Columns that version 1 did not have."""


def sqlite_1(path: Path, *items: PredictionRecord | Feedback, destination: str | None = None) -> None:
    """Make a log of version 1 with these rows.

    Args:
        path: of the file.
        items: the rows; their names of models are not written.
        destination: where the log ships to.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQLITE_1)
        if destination is not None:
            connection.execute("INSERT INTO facts VALUES ('destination', ?)", (destination,))
        for item in items:
            if isinstance(item, Feedback):
                values: tuple[Any, ...] = (item.prediction_id, item.true_label, item.source, item.time_us)
                connection.execute("INSERT INTO feedback VALUES (NULL, ?, ?, ?, ?)", values)
            else:
                values = schema.to_row(item)[: -len(OF_LATER)]
                connection.execute(f"INSERT INTO predictions VALUES ({', '.join('?' * len(values))})", values)
        connection.commit()


def postgres_1(connection: psycopg.Connection[Any], *records: PredictionRecord) -> None:
    """Make a log of version 1 with these rows in an empty database.

    Args:
        connection: of the owner.
        records: the rows; their names of models are not written.
    """
    connection.execute(POSTGRES_1.encode())
    for record in records:
        *values, _, _, expire_at = postgres_schema.to_row(record, None)
        places = "%s, %s, %s, %s::text, %s, %s, %s::real[], %s::real[], %s, %s, %s, %s::text, %s::timestamptz"
        connection.execute(f"INSERT INTO prediction_log.predictions VALUES ({places})".encode(), (*values, expire_at))
