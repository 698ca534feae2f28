"""Predictions that are never lost: a durable log in one SQLite file, with an outbox of what is yet to be shipped.

What `append` has returned from is on the disk, whichever process is killed next. Any number of threads and
processes share the file. Knows nothing of models, of requests, or of where the outbox is shipped to.
"""

import contextlib
import errno
import functools
import json
import os
import random
import re
import sqlite3
import struct
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fashion.images import STATISTICS

ROLES = ("champion", "shadow")
TAG_BYTES = 200
"""Longest model version, client and source, in UTF-8."""
LOCKED_SECONDS = 30.0
"""How long a writer waits for the writers of other processes."""
PAGE_ROWS = 1000
"""Rows read, or dropped, at once."""
FLOAT32 = 3.4e38
"""Beyond this a number does not fit."""
FLOAT16 = 65520.0
"""Likewise."""
SCHEMA = 1
APPLICATION = 0x46415348
"""Tells this log from other SQLite files."""

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_YEAR_10000 = 253_402_300_800_000_000

_NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
_SHIPS = "EXISTS (SELECT 1 FROM facts WHERE name = 'destination')"
_CREATE = (
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
_QUEUE_ALL = (
    f"""INSERT INTO outbox (prediction_id, role, queued_us)
        SELECT prediction_id, role, {_NOW_US} FROM predictions ORDER BY time_us, prediction_id, role""",
    f"""INSERT INTO outbox (prediction_id, role, feedback, queued_us)
        SELECT prediction_id, 'champion', sequence, {_NOW_US} FROM feedback ORDER BY sequence""",
)
_COLUMNS = (
    *("prediction_id", "role", "time_us", "model_version", "label", "confidence", "probabilities", "statistics"),
    *("embedding", "image_sha256", "latency_ms", "client"),
)
_ROW = ", ".join(f"p.{name}" for name in _COLUMNS)
# ON CONFLICT names its key: INSERT OR IGNORE would also swallow a row that breaks NOT NULL.
_INSERT = (
    f"INSERT INTO predictions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    "ON CONFLICT (prediction_id, role) DO NOTHING"
)

Key = tuple[int, str, str]
Row = tuple[Any, ...]


class LogUnavailable(OSError):
    """The log cannot be read or written now. The message is one sentence with the file and what to do."""


class DamagedLog(LogUnavailable):
    """The file is no readable database. Nothing was deleted."""


class UnknownPrediction(LookupError):
    """The log holds no such prediction."""


@dataclass(frozen=True)
class PredictionRecord:
    """One prediction, as it was answered (champion), or as another model would have answered (shadow)."""

    prediction_id: str
    """A uuid7, see `new_prediction_id`. A shadow's record bears the id of the champion's: the same request."""
    time_us: int
    """Microseconds since 1970, UTC."""
    model_version: str
    role: str
    """'champion' or 'shadow'."""
    label: int
    """Index of the most probable class."""
    confidence: float
    """Its calibrated probability."""
    probabilities: tuple[float, ...]
    """One a class, calibrated; kept as float32."""
    statistics: tuple[float, ...]
    """Eight, as `fashion.images.STATISTICS` names them; kept as float32."""
    embedding: tuple[float, ...]
    """16 principal components; kept as float16."""
    image_sha256: str
    latency_ms: float
    client: str | None = None
    """An opaque tag of who asked."""

    def __post_init__(self) -> None:
        if not is_prediction_id(self.prediction_id):
            raise ValueError(f"prediction_id must be a uuid7 in lower case, got {self.prediction_id!r}")
        if self.role not in ROLES:
            raise ValueError(f"role must be one of {ROLES}, got {self.role!r}")
        if not 0 <= self.label < len(self.probabilities):
            raise ValueError(f"label must be one of {len(self.probabilities)} classes, got {self.label}")
        if len(self.statistics) != len(STATISTICS):
            raise ValueError(f"statistics must be {len(STATISTICS)} numbers, got {len(self.statistics)}")
        if not _SHA256.fullmatch(self.image_sha256):
            raise ValueError(f"image_sha256 must be 64 hexadecimal digits, got {self.image_sha256!r}")
        for name, numbers, limit in (
            ("confidence", (self.confidence,), FLOAT32),
            ("latency_ms", (self.latency_ms,), FLOAT32),
            ("probabilities", self.probabilities, FLOAT32),
            ("statistics", self.statistics, FLOAT32),
            ("embedding", self.embedding, FLOAT16),
        ):
            for number in numbers:
                if not abs(number) < limit:
                    raise ValueError(f"{name} must be finite and less than {limit:g}, got {number}")
        _check_time(self.time_us)
        _check_tag("model_version", self.model_version)
        if self.client is not None:
            _check_tag("client", self.client)


@dataclass(frozen=True)
class Feedback:
    """What a prediction should have been, by somebody's word. Given again, the latest counts and all are kept."""

    prediction_id: str
    true_label: int
    source: str
    """Who says so: 'page', 'csv', a person."""
    time_us: int
    """Microseconds since 1970, UTC."""

    def __post_init__(self) -> None:
        if not 0 <= self.true_label < 2**31:
            raise ValueError(f"true_label must be a class, got {self.true_label}")
        _check_time(self.time_us)
        _check_tag("source", self.source)


@dataclass(frozen=True)
class LoggedPrediction:
    """A record and what was said about it."""

    record: PredictionRecord
    feedback: tuple[Feedback, ...] = ()
    """By time. A shadow's is empty: people judge what was answered."""

    @property
    def true_label(self) -> int | None:
        """The latest word, or None."""
        return self.feedback[-1].true_label if self.feedback else None


@dataclass(frozen=True)
class Outgoing:
    """A row of the outbox: a record, or feedback."""

    sequence: int
    queued_us: int
    item: PredictionRecord | Feedback


@dataclass(frozen=True)
class Backlog:
    """What is not shipped yet."""

    destination: str | None
    """Where the log ships to, or None: then nothing waits."""
    rows: int
    """Records and feedback that wait."""
    age_s: float
    """Seconds that the oldest of them has waited."""
    refused: int
    """Records and feedback that the destination will never take; they stay in the log."""
    reasons: tuple[str, ...]
    """Why: a few of the latest, each once."""
    problem: str | None
    """What keeps the shipper from shipping now."""


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


def is_prediction_id(text: str) -> bool:
    """Tell whether a text can be a prediction's id: a uuid7 in lower case."""
    return _ID.fullmatch(text) is not None


_last_id = 0
_id_lock = threading.Lock()


def new_prediction_id(
    clock: Callable[[], int] = time.time_ns, random_bytes: Callable[[int], bytes] = os.urandom
) -> str:
    """A uuid7 (RFC 9562): sorted by time, greater than any before it in this process, not to be guessed.

    Args:
        clock: nanoseconds since 1970. One that goes back does not take the ids back.
        random_bytes: gives that many.
    """
    global _last_id
    value = (clock() // 1_000_000) << 74 | int.from_bytes(random_bytes(10)) >> 6
    with _id_lock:
        if value <= _last_id:
            value = _last_id + 1 + int.from_bytes(random_bytes(4))
        _last_id = value
    milliseconds, high, low = value >> 74, value >> 62 & 0xFFF, value & (1 << 62) - 1
    return str(uuid.UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | high << 64 | 2 << 62 | low))


class _Unreadable(Exception):
    """A row is not what was written."""


@dataclass
class _Write:
    """What one thread wants written."""

    action: Callable[[sqlite3.Connection], Any]
    result: Any = None
    error: BaseException | None = None
    done: bool = field(default=False)


class PredictionLog:
    """The log in a file; made where there is none. Safe to call from threads; open one in each process.

    Every method raises LogUnavailable where the disk is full, read-only, broken or locked for long, and
    DamagedLog where the file is.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the log.

        Raises:
            LogUnavailable: also for a log of a newer version of this program, and for another program's file.
        """
        self.path = Path(path).absolute()
        self._waiting: deque[_Write] = deque()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        with self._one_error():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            try:
                self._prepare()
                self._writer.execute("PRAGMA busy_timeout = 0")  # `_begin` waits instead
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise
            self._reader.execute("PRAGMA query_only = ON")
            self._file = _identity(self.path)

    def __enter__(self) -> "PredictionLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was written stays."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    def append(self, records: Iterable[PredictionRecord]) -> None:
        """Write records, all or none. When this returns they are on the disk.

        A record that is already there is absorbed, so a caller may try again.

        Raises:
            ValueError: another record has the same id and role.
        """
        rows = [_row(record) for record in records]

        def insert(connection: sqlite3.Connection) -> None:
            if connection.executemany(_INSERT, rows).rowcount == len(rows):
                return
            for row in rows:
                sql = f"SELECT {_ROW} FROM predictions p WHERE prediction_id = ? AND role = ?"
                if connection.execute(sql, row[:2]).fetchone() != row:
                    raise ValueError(f"prediction {row[0]} is already in the log, as {row[1]}, and differs")

        self._write(insert)

    def append_feedback(self, feedback: Iterable[Feedback], *, known_elsewhere: bool = False) -> None:
        """Write feedback, all or none. Feedback that is already there is absorbed.

        Args:
            known_elsewhere: the predictions were found where other machines ship theirs to; this log need not
                hold them.

        Raises:
            UnknownPrediction: this log holds no such prediction, or it is no prediction's id.
        """
        rows = [(each.prediction_id, int(each.true_label), each.source, int(each.time_us)) for each in feedback]
        for prediction_id, *_ in rows:
            _check_known(is_prediction_id(prediction_id), prediction_id)

        def insert(connection: sqlite3.Connection) -> None:
            for prediction_id in {} if known_elsewhere else {row[0]: None for row in rows}:
                sql = "SELECT 1 FROM predictions WHERE prediction_id = ? AND role = 'champion'"
                _check_known(connection.execute(sql, (prediction_id,)).fetchone() is not None, prediction_id)
            connection.executemany(
                "INSERT INTO feedback (prediction_id, true_label, source, time_us) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (prediction_id, time_us, source, true_label) DO NOTHING",
                rows,
            )

        self._write(insert)

    def get(self, prediction_id: str, role: str = "champion") -> LoggedPrediction:
        """One prediction.

        Raises:
            UnknownPrediction: the log does not hold it.
        """
        _check_known(is_prediction_id(prediction_id), prediction_id)
        found = self._page("WHERE prediction_id = ? AND role = ?", (prediction_id, role))
        _check_known(bool(found), prediction_id)
        return found[0]

    def window(
        self,
        since_us: int,
        until_us: int,
        *,
        role: str | None = None,
        model_version: str | None = None,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[LoggedPrediction]:
        """Predictions of since <= time < until, oldest first; equal times by id. Holds one page in memory."""
        chosen, values = _chosen(role, model_version)
        after: Key = (since_us, "", "")
        while True:
            page = self._page(
                f"WHERE (time_us, prediction_id, role) > (?, ?, ?) AND time_us < ? {chosen} "
                "ORDER BY time_us, prediction_id, role LIMIT ?",
                (*after, until_us, *values, page_rows),
            )
            yield from page
            if len(page) < page_rows:
                return
            after = _key(page[-1].record)

    def latest(
        self,
        rows: int,
        *,
        role: str | None = None,
        model_version: str | None = None,
        judged: bool = False,
        page_rows: int = PAGE_ROWS,
    ) -> Iterator[LoggedPrediction]:
        """At most that many predictions, newest first; with `judged`, only those with feedback. Holds one page."""
        chosen, values = _chosen(role, model_version)
        if judged:
            chosen += " AND prediction_id IN (SELECT prediction_id FROM feedback)"
        before: Key = (_YEAR_10000, "", "")
        while rows > 0:
            size = min(rows, page_rows)
            page = self._page(
                f"WHERE (time_us, prediction_id, role) < (?, ?, ?) {chosen} "
                "ORDER BY time_us DESC, prediction_id DESC, role DESC LIMIT ?",
                (*before, *values, size),
            )
            yield from page
            if len(page) < size:
                return
            rows, before = rows - size, _key(page[-1].record)

    def columns(
        self,
        since_us: int,
        until_us: int,
        *,
        role: str,
        newest: int | None = None,
        page_rows: int = 10 * PAGE_ROWS,
    ) -> Iterator[Columns]:
        """What `window` gives, as columns and without an object for each row. Holds one page in memory.

        Args:
            newest: only that many rows, the latest ones.
        """
        after: Key = (since_us, "", "")
        inclusive = True
        if newest is not None:
            found = self._read(
                "SELECT time_us, prediction_id, role FROM predictions WHERE time_us >= ? AND time_us < ? AND role = ? "
                "ORDER BY time_us DESC, prediction_id DESC, role DESC LIMIT 1 OFFSET ?",
                (since_us, until_us, role, newest - 1),
            )
            after = found[0] if found else after
        while True:
            page = self._read(
                f"SELECT {_ROW}, (SELECT f.true_label FROM feedback f WHERE f.prediction_id = p.prediction_id "
                "ORDER BY f.time_us DESC, f.sequence DESC LIMIT 1) FROM predictions p "
                f"WHERE (time_us, prediction_id, role) {'>=' if inclusive else '>'} (?, ?, ?) AND time_us < ? "
                "AND role = ? ORDER BY time_us, prediction_id, role LIMIT ?",
                (*after, until_us, role, page_rows),
            )
            if page:
                with self._one_error():
                    yield from _columns(page)
            if len(page) < page_rows:
                return
            inclusive, last = False, page[-1]
            after = (last[2], last[0], last[1])

    def count(
        self,
        since_us: int = 0,
        until_us: int = _YEAR_10000,
        *,
        role: str | None = None,
        model_version: str | None = None,
    ) -> int:
        """How many predictions `window` would give."""
        chosen, values = _chosen(role, model_version)
        sql = f"SELECT count(*) FROM predictions p WHERE time_us >= ? AND time_us < ? {chosen}"
        return int(self._read(sql, (since_us, until_us, *values))[0][0])

    def export(self, path: str | Path, since_us: int = 0, until_us: int = _YEAR_10000) -> int:
        """Write a window as Parquet, a page at a time, and return how many rows; the file appears whole.

        Columns that a model package's reference rows have too bear the same names: `predicted` is a record's
        label and `label` the latest true one, null where nobody said; each statistic is a column.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema, target, rows = _parquet_schema(), Path(path).absolute(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for page in pages(self.window(since_us, until_us), 10 * PAGE_ROWS):
                    writer.write_batch(pa.RecordBatch.from_pylist([_parquet_row(each) for each in page], schema))
                    rows += len(page)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return rows

    def retain(self, days: float, clock: Callable[[], int] = time.time_ns) -> int:
        """Drop predictions older than that, with their feedback, and return how many.

        What waits to be shipped stays, and what was refused. A log that ships nowhere keeps nothing back.
        """
        limit = clock() // 1000 - int(days * 86_400_000_000)
        after: Key | None = (0, "", "")
        dropped = 0
        while after is not None:  # in pages, so that writers get their turn
            count, after = self._write(functools.partial(_drop_page, limit_us=limit, after=after))
            dropped += count
        self._write(lambda connection: _drop_orphans(connection, limit))
        return dropped

    # What follows serves whoever ships the outbox.

    def ship_to(self, destination: str | None) -> None:
        """Remember where the log is shipped to, and queue all that it holds. From now on `retain` keeps what waits.

        Called again with the same destination it changes nothing. None ships nowhere, and empties the outbox.
        """

        def update(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT value FROM facts WHERE name = 'destination'").fetchone()
            if known == (None if destination is None else (destination,)):
                return  # another process was first
            for statement in ("DELETE FROM outbox", "DELETE FROM facts WHERE name = 'destination'"):
                connection.execute(statement)
            if destination is not None:
                for statement in _QUEUE_ALL:
                    connection.execute(statement)
                connection.execute("INSERT INTO facts VALUES ('destination', ?)", (destination,))

        self._write(update)

    def report(self, problem: str | None) -> None:
        """Remember, for every process, what keeps the outbox from being shipped."""
        self._remember("problem", problem)

    def backlog(self, clock: Callable[[], int] = time.time_ns) -> Backlog:
        """What is not shipped yet."""
        facts: dict[str, str] = dict(self._read("SELECT name, value FROM facts", ()))
        if "destination" not in facts:
            return Backlog(None, 0, 0.0, 0, (), None)
        sql = "SELECT count(*) - count(refused), count(refused), min(CASE WHEN refused IS NULL THEN queued_us END)"
        waiting, refused, oldest = self._read(f"{sql} FROM outbox", ())[0]
        latest = "SELECT refused FROM outbox WHERE refused IS NOT NULL ORDER BY sequence DESC LIMIT 100"
        reasons = tuple({row[0]: None for row in self._read(latest, ())})[:5] if refused else ()
        age = max(0.0, clock() / 1e9 - oldest / 1e6) if waiting else 0.0
        return Backlog(facts["destination"], waiting, age, refused, reasons, facts.get("problem"))

    def outbox(self, rows: int, due_us: int) -> list[Outgoing]:
        """The oldest that wait and are due by then."""
        found = self._read(
            f"SELECT o.sequence, o.queued_us, f.prediction_id, f.true_label, f.source, f.time_us, {_ROW} FROM outbox o "
            "LEFT JOIN predictions p ON o.feedback IS NULL AND p.prediction_id = o.prediction_id AND p.role = o.role "
            "LEFT JOIN feedback f ON f.sequence = o.feedback "
            "WHERE o.refused IS NULL AND o.due_us <= ? ORDER BY o.sequence LIMIT ?",
            (due_us, rows),
        )
        with self._one_error():
            return [
                Outgoing(row[0], row[1], _record(row[6:]) if row[2] is None else _feedback(row[2:6])) for row in found
            ]

    def is_shipped(self, prediction_ids: Sequence[str]) -> bool:
        """Tell whether nothing about these predictions waits, or was refused."""
        sql = "SELECT 1 FROM outbox WHERE prediction_id IN (SELECT value FROM json_each(?)) LIMIT 1"
        return not self._read(sql, (json.dumps(list(prediction_ids)),))

    def is_refused(self, prediction_id: str) -> bool:
        """Tell whether the destination will never take the prediction, as it was answered."""
        sql = "SELECT 1 FROM outbox WHERE prediction_id = ? AND refused IS NOT NULL AND feedback IS NULL"
        return bool(self._read(f"{sql} AND role = 'champion' LIMIT 1", (prediction_id,)))

    def settle(
        self,
        shipped: Sequence[int] = (),
        deferred: Sequence[tuple[int, int]] = (),
        refused: Sequence[tuple[int, str]] = (),
    ) -> None:
        """Write down what became of rows of the outbox.

        Args:
            shipped: sequences.
            deferred: sequences, and the microsecond before which they are not due.
            refused: sequences, and the reason.
        """

        def update(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM outbox WHERE sequence = ?", [(each,) for each in shipped])
            connection.executemany(
                "UPDATE outbox SET due_us = ? WHERE sequence = ?", [(until, sequence) for sequence, until in deferred]
            )
            connection.executemany(
                "UPDATE outbox SET refused = ? WHERE sequence = ?", [(reason, sequence) for sequence, reason in refused]
            )

        if shipped or deferred or refused:
            self._write(update)

    def revive(self) -> int:
        """Let what was refused wait again, after its cause was mended, and return how much there is."""
        sql = "UPDATE outbox SET refused = NULL, due_us = 0 WHERE refused IS NOT NULL"
        return int(self._write(lambda connection: connection.execute(sql).rowcount))

    def _remember(self, name: str, value: str | None) -> None:
        def update(connection: sqlite3.Connection) -> None:
            if value is None:
                connection.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                connection.execute("REPLACE INTO facts VALUES (?, ?)", (name, value))

        if self._read("SELECT value FROM facts WHERE name = ?", (name,)) != ([] if value is None else [(value,)]):
            self._write(update)

    def _page(self, clause: str, values: Sequence[Any]) -> list[LoggedPrediction]:
        found = self._read(f"SELECT {_ROW} FROM predictions p {clause}", values)
        with self._one_error():
            records = [_record(row) for row in found]
        found = self._read(
            "SELECT prediction_id, true_label, source, time_us FROM feedback "
            "WHERE prediction_id IN (SELECT value FROM json_each(?)) ORDER BY time_us, sequence",
            (json.dumps([record.prediction_id for record in records if record.role == "champion"]),),
        )
        said: dict[str, list[Feedback]] = {}
        with self._one_error():
            for row in found:
                said.setdefault(row[0], []).append(_feedback(row))
        return [
            LoggedPrediction(record, tuple(said.get(record.prediction_id, ())) if record.role == "champion" else ())
            for record in records
        ]

    def _read(self, sql: str, values: Sequence[Any]) -> list[Row]:
        with self._one_error(), self._read_lock:
            return self._reader.execute(sql, values).fetchall()

    def _write(self, action: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run an action in a transaction, which it may share with what other threads want written meanwhile.

        A disk syncs as fast for many rows as for one: on one where that takes 5 ms, this is what makes more
        than 200 requests a second possible.
        """
        mine = _Write(action)
        self._waiting.append(mine)
        with self._write_lock:
            if not mine.done:
                self._commit([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.error is not None:
            raise mine.error
        return mine.result

    def _commit(self, writes: list[_Write]) -> None:
        begun = False
        try:
            with self._one_error():
                if _identity(self.path) != self._file:
                    raise LogUnavailable(f"{self.path} was moved or deleted while in use: start this process again")
                self._begin(self._writer)
                begun = True
                try:
                    for write in writes:
                        write.result = write.action(self._writer)
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        except Exception as error:
            if begun and len(writes) > 1:  # one may be at fault: each for itself
                for write in writes:
                    self._commit([write])
            else:
                for write in writes:
                    write.error = error
        except BaseException:
            for write in writes:
                write.error = LogUnavailable(f"writing to {self.path} was interrupted: try again")
            raise
        finally:
            for write in writes:
                write.done = True

    def _begin(self, connection: sqlite3.Connection) -> None:
        # SQLite's own waiting backs off to 100 ms: four busy processes saw 430 ms at worst, and 150 ms this way.
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not _is(error, sqlite3.SQLITE_BUSY) or time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.0002, 0.001))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    def _prepare(self) -> None:
        """Make the tables, unless they are there; of several processes one does."""
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:  # no timeout of SQLite's covers the change to WAL
            try:
                self._check_version()
                mode = self._writer.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":
                    raise LogUnavailable(
                        f"{self.path} lies on a disk without shared memory (journal mode {mode}), as network disks "
                        "are: give the log a path on a local one"
                    )
                break
            except sqlite3.OperationalError as error:
                if not _is(error, sqlite3.SQLITE_BUSY) or time.monotonic() > deadline:
                    raise
            time.sleep(0.005)
        self._begin(self._writer)
        if self._check_version() == 0:
            for statement in _CREATE:
                self._writer.execute(statement)
        self._writer.execute("COMMIT")

    def _check_version(self) -> int:
        # One statement sees one moment: another process may be making the tables.
        version, application, tables = self._writer.execute(
            "SELECT (SELECT user_version FROM pragma_user_version), "
            "(SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_master)"
        ).fetchone()
        if application != APPLICATION and (tables or application or version):
            raise LogUnavailable(f"{self.path} is an SQLite database of another program: give the log another path")
        if version > SCHEMA:
            raise LogUnavailable(
                f"{self.path} was written by a newer version of this program (schema {version}, this one knows "
                f"{SCHEMA}): install that version, or give the log another path"
            )
        return int(version)

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        try:
            yield
        except LogUnavailable:
            raise
        except (sqlite3.DatabaseError, OSError, _Unreadable) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> LogUnavailable:
        if isinstance(error, _Unreadable) or _is(error, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DamagedLog(
                f"{self.path} is damaged ({error}): move it and its -wal and -shm files aside, which begins a new log, "
                f"and save what is readable with `sqlite3 {self.path} .recover`; nothing was deleted"
            )
        if isinstance(error, sqlite3.ProgrammingError):
            return LogUnavailable(f"{self.path} was closed by this process: open the log again")
        if _is(error, sqlite3.SQLITE_FULL) or getattr(error, "errno", 0) == errno.ENOSPC:
            return LogUnavailable(f"the disk of {self.path} is full: free some space")
        if _is(error, sqlite3.SQLITE_BUSY):
            return LogUnavailable(f"{self.path} was locked by another process for {LOCKED_SECONDS:.0f} s: try again")
        return LogUnavailable(
            f"{self.path} cannot be used ({error}): check that its folder is there, writable and on a sound disk"
        )


def _is(error: Exception, *codes: int) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _check_known(known: bool, prediction_id: str) -> None:
    if not known:
        named = prediction_id if is_prediction_id(prediction_id) else repr(prediction_id[:40])
        raise UnknownPrediction(f"no prediction {named} in the log")


def _check_time(time_us: int) -> None:
    if not 0 <= time_us < _YEAR_10000:
        raise ValueError(f"time_us must be microseconds since 1970, got {time_us}")


def _check_tag(name: str, value: str) -> None:
    # Encoding refuses halves of surrogate pairs, which neither SQLite nor Firestore takes: a ValueError too.
    if not 0 < len(value.encode()) <= TAG_BYTES:
        raise ValueError(f"{name} must be 1 to {TAG_BYTES} bytes long, got {value[:40]!r}")


def _chosen(role: str | None, model_version: str | None) -> tuple[str, list[str]]:
    given = {"role": role, "model_version": model_version}
    return (
        " ".join(f"AND p.{name} = ?" for name, value in given.items() if value is not None),
        [value for value in given.values() if value is not None],
    )


def _key(record: PredictionRecord) -> Key:
    return record.time_us, record.prediction_id, record.role


def _row(record: PredictionRecord) -> Row:
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


def _record(row: Row) -> PredictionRecord:
    given = dict(zip(_COLUMNS, row, strict=True))
    try:
        for name, kind in (("probabilities", "f"), ("statistics", "f"), ("embedding", "e")):
            given[name] = unpack(kind, given[name])
        return PredictionRecord(**given)
    except (TypeError, ValueError, struct.error) as error:
        raise _Unreadable(f"prediction {row[0]}: {error}") from error


def _columns(page: Sequence[Row]) -> Iterator[Columns]:
    """A page's rows as arrays; rows of another number of classes apart."""
    by_shape: dict[tuple[int, int, int], list[Row]] = {}
    for row in page:
        try:
            by_shape.setdefault((len(row[6]), len(row[7]), len(row[8])), []).append(row)
        except TypeError:
            raise _Unreadable(f"prediction {row[0]} holds no numbers where it should") from None
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
            raise _Unreadable(f"predictions {ids[0]} to {ids[-1]}: {error}") from error


def _joined(packed: Sequence[bytes], kind: str, rows: int) -> NDArray[Any]:
    return np.frombuffer(b"".join(packed), kind).reshape(rows, -1)


def _feedback(row: Row) -> Feedback:
    try:
        return Feedback(*row)
    except (TypeError, ValueError, AttributeError) as error:
        raise _Unreadable(f"feedback on {row[0]}: {error}") from error


def pack(kind: str, values: Sequence[float]) -> bytes:
    """Numbers as little-endian float32 ('f') or float16 ('e')."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def unpack(kind: str, data: bytes) -> tuple[float, ...]:
    """What `pack` packed."""
    return struct.unpack(f"<{len(data) // struct.calcsize(kind)}{kind}", data)


def _drop_page(connection: sqlite3.Connection, *, limit_us: int, after: Key) -> tuple[int, Key | None]:
    """Drop what may be dropped of a page of old predictions: how many, and where the next page starts."""
    page = connection.execute(
        "SELECT time_us, prediction_id, role, EXISTS (SELECT 1 FROM outbox o WHERE o.prediction_id = p.prediction_id) "
        "FROM predictions p WHERE (time_us, prediction_id, role) > (?, ?, ?) AND time_us < ? "
        "ORDER BY time_us, prediction_id, role LIMIT ?",
        (*after, limit_us, PAGE_ROWS),
    ).fetchall()
    ships = connection.execute("SELECT 1 FROM facts WHERE name = 'destination'").fetchone()
    keys = [(prediction_id, role) for _, prediction_id, role, waits in page if not (ships and waits)]
    answered = [(prediction_id,) for prediction_id, role in keys if role == "champion"]
    connection.executemany("DELETE FROM predictions WHERE prediction_id = ? AND role = ?", keys)
    connection.executemany("DELETE FROM feedback WHERE prediction_id = ?", answered)
    connection.executemany("DELETE FROM outbox WHERE prediction_id = ? AND role = ?", keys)
    return len(keys), tuple(page[-1][:3]) if len(page) == PAGE_ROWS else None


def _drop_orphans(connection: sqlite3.Connection, limit_us: int) -> None:
    """Drop old feedback on predictions of other machines, once it is shipped."""
    connection.execute(
        "DELETE FROM feedback WHERE time_us < ? "
        "AND NOT EXISTS (SELECT 1 FROM predictions p WHERE p.prediction_id = feedback.prediction_id) "
        "AND NOT EXISTS (SELECT 1 FROM outbox o, facts ON o.feedback = feedback.sequence "
        "AND o.prediction_id = feedback.prediction_id AND facts.name = 'destination')",
        (limit_us,),
    )
    connection.execute(
        "DELETE FROM outbox WHERE feedback IS NOT NULL AND feedback NOT IN (SELECT sequence FROM feedback)"
    )


def pages(rows: Iterator[LoggedPrediction], size: int) -> Iterator[list[LoggedPrediction]]:
    """Rows, so many at a time."""
    page: list[LoggedPrediction] = []
    for row in rows:
        page.append(row)
        if len(page) == size:
            yield page
            page = []
    if page:
        yield page


def _parquet_schema() -> Any:
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    said = pa.struct({"true_label": pa.int64(), "source": pa.string(), "time": moment})
    return pa.schema(
        {
            "prediction_id": pa.string(),
            "time": moment,
            "model_version": pa.string(),
            "role": pa.string(),
            "label": pa.int64(),
            "predicted": pa.int64(),
            "confidence": pa.float32(),
            "probabilities": pa.list_(pa.float32()),
            "embedding": pa.list_(pa.float16()),
            **{name: pa.float32() for name in STATISTICS},
            "image_sha256": pa.string(),
            "latency_ms": pa.float64(),
            "client": pa.string(),
            "feedback": pa.list_(said),
        }
    )


def _parquet_row(logged: LoggedPrediction) -> dict[str, Any]:
    record = logged.record
    kept = ("prediction_id", "model_version", "role", "confidence", "probabilities", "image_sha256", "latency_ms")
    return {
        **{name: getattr(record, name) for name in (*kept, "client")},
        "embedding": record.embedding,
        "time": record.time_us,
        "label": logged.true_label,
        "predicted": record.label,
        **dict(zip(STATISTICS, record.statistics, strict=True)),
        "feedback": [
            {"true_label": each.true_label, "source": each.source, "time": each.time_us} for each in logged.feedback
        ],
    }


if __name__ == "__main__":
    import sys

    from fashion import log_command

    sys.exit(log_command.main())
