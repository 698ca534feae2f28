"""Predictions that are never lost: a durable log in one SQLite file, with an outbox of what is yet to be shipped.

What `append` has returned from is on the disk, whichever process is killed next. Any number of threads and
processes share the file. Knows nothing of models, of requests, or of where the outbox is shipped to.
"""

import contextlib
import errno
import functools
import json
import random
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fashion.predictions.export import parquet_row, parquet_schema
from fashion.predictions.record import (
    FOREVER_US,
    Backlog,
    DamagedLog,
    Feedback,
    LoggedPrediction,
    LogUnavailable,
    Outgoing,
    PredictionRecord,
    UnknownPrediction,
    is_prediction_id,
    pages,
)
from fashion.predictions.schema import (
    APPLICATION,
    CREATE,
    INSERT,
    QUEUE_ALL,
    SCHEMA,
    SELECTED,
    Columns,
    Key,
    Row,
    UnreadableRow,
    conditions,
    key_of,
    to_columns,
    to_feedback,
    to_record,
    to_row,
)

LOCKED_SECONDS = 30.0
"""How long a writer waits for the writers of other processes."""
PAGE_ROWS = 1000
"""Rows read, or dropped, at once."""


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
        rows = [to_row(record) for record in records]

        def insert(connection: sqlite3.Connection) -> None:
            if connection.executemany(INSERT, rows).rowcount == len(rows):
                return
            for row in rows:
                sql = f"SELECT {SELECTED} FROM predictions p WHERE prediction_id = ? AND role = ?"
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
        chosen, values = conditions(role, model_version)
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
            after = key_of(page[-1].record)

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
        chosen, values = conditions(role, model_version)
        if judged:
            chosen += " AND prediction_id IN (SELECT prediction_id FROM feedback)"
        before: Key = (FOREVER_US, "", "")
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
            rows, before = rows - size, key_of(page[-1].record)

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
                f"SELECT {SELECTED}, (SELECT f.true_label FROM feedback f WHERE f.prediction_id = p.prediction_id "
                "ORDER BY f.time_us DESC, f.sequence DESC LIMIT 1) FROM predictions p "
                f"WHERE (time_us, prediction_id, role) {'>=' if inclusive else '>'} (?, ?, ?) AND time_us < ? "
                "AND role = ? ORDER BY time_us, prediction_id, role LIMIT ?",
                (*after, until_us, role, page_rows),
            )
            if page:
                with self._one_error():
                    yield from to_columns(page)
            if len(page) < page_rows:
                return
            inclusive, last = False, page[-1]
            after = (last[2], last[0], last[1])

    def count(
        self,
        since_us: int = 0,
        until_us: int = FOREVER_US,
        *,
        role: str | None = None,
        model_version: str | None = None,
    ) -> int:
        """How many predictions `window` would give."""
        chosen, values = conditions(role, model_version)
        sql = f"SELECT count(*) FROM predictions p WHERE time_us >= ? AND time_us < ? {chosen}"
        return int(self._read(sql, (since_us, until_us, *values))[0][0])

    def export(self, path: str | Path, since_us: int = 0, until_us: int = FOREVER_US) -> int:
        """Write a window as Parquet, a page at a time, and return how many rows; the file appears whole.

        Columns that a model package's reference rows have too bear the same names: `predicted` is a record's
        label and `label` the latest true one, null where nobody said; each statistic is a column.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema, target, rows = parquet_schema(), Path(path).absolute(), 0
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for page in pages(self.window(since_us, until_us), 10 * PAGE_ROWS):
                    writer.write_batch(pa.RecordBatch.from_pylist([parquet_row(each) for each in page], schema))
                    rows += len(page)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return rows

    def prune(self, days: float, clock: Callable[[], int] = time.time_ns) -> int:
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
        """Remember where the log is shipped to, and queue all that it holds. From now on `prune` keeps what waits.

        Called again with the same destination it changes nothing. None ships nowhere, and empties the outbox.
        """

        def update(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT value FROM facts WHERE name = 'destination'").fetchone()
            if known == (None if destination is None else (destination,)):
                return  # another process was first
            for statement in ("DELETE FROM outbox", "DELETE FROM facts WHERE name = 'destination'"):
                connection.execute(statement)
            if destination is not None:
                for statement in QUEUE_ALL:
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
            f"SELECT o.sequence, o.queued_us, f.prediction_id, f.true_label, f.source, f.time_us, {SELECTED} "
            "FROM outbox o LEFT JOIN predictions p "
            "ON o.feedback IS NULL AND p.prediction_id = o.prediction_id AND p.role = o.role "
            "LEFT JOIN feedback f ON f.sequence = o.feedback "
            "WHERE o.refused IS NULL AND o.due_us <= ? ORDER BY o.sequence LIMIT ?",
            (due_us, rows),
        )
        with self._one_error():
            return [
                Outgoing(row[0], row[1], to_record(row[6:]) if row[2] is None else to_feedback(row[2:6]))
                for row in found
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

    def retry_refused(self) -> int:
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
        found = self._read(f"SELECT {SELECTED} FROM predictions p {clause}", values)
        with self._one_error():
            records = [to_record(row) for row in found]
        found = self._read(
            "SELECT prediction_id, true_label, source, time_us FROM feedback "
            "WHERE prediction_id IN (SELECT value FROM json_each(?)) ORDER BY time_us, sequence",
            (json.dumps([record.prediction_id for record in records if record.role == "champion"]),),
        )
        said: dict[str, list[Feedback]] = {}
        with self._one_error():
            for row in found:
                said.setdefault(row[0], []).append(to_feedback(row))
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
            for statement in CREATE:
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
        except (sqlite3.DatabaseError, OSError, UnreadableRow) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> LogUnavailable:
        if isinstance(error, UnreadableRow) or _is(error, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
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
