"""The log's SQLite file: opening it, sharing commits between threads, one kind of error. Knows no tables."""

import contextlib
import errno
import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.predictions.record import DamagedLog, LogUnavailable
from fashion.storage import erasure

LOCKED_SECONDS = 30.0
"""How long a writer waits for the writers of other processes."""

Row = tuple[Any, ...]
"""Values of one row, as SQLite returns them."""


class UnreadableRow(Exception):
    """A stored row cannot be decoded."""


class Busy(Exception):
    """Another thread or process writes to the file now, and the caller does not want to wait."""


@dataclass
class _Write:
    """A write that a thread waits for."""

    action: Callable[[sqlite3.Connection], Any]
    result: Any = None
    error: BaseException | None = None
    done: bool = False


class Database:
    """An SQLite file that threads and processes share; each process opens it once.

    Every method raises LogUnavailable where the disk is full, read-only, broken or locked for long, and
    DamagedLog where the file is corrupt.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        create: Sequence[str],
        application_id: int,
        version: int,
        migrations: Mapping[int, Sequence[str]],
    ) -> None:
        """Open the file, make its tables where there are none, and bring those of an older version up to date.

        Args:
            path: the file; missing folders are made.
            create: SQL statements that make the tables and set `application_id` and `user_version`.
            application_id: what tells this file from another program's.
            version: of the tables that `create` makes.
            migrations: version -> SQL statements that make the next version of it, `user_version` included.

        Raises:
            LogUnavailable: also for a file of a newer version, for another program's file, and for tables that differ
                from what their version says.
        """
        self.path = Path(path).absolute()
        self._create, self._application_id, self._version = create, application_id, version
        self._migrations = migrations
        self._waiting: deque[_Write] = deque()
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        with self.translate_errors():
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

    def close(self) -> None:
        """Close the file."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of one SELECT."""
        with self.translate_errors(), self._read_lock:
            return self._reader.execute(sql, values).fetchall()

    def scan(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of one SELECT that may take long: other reads of this process do not wait for it."""
        with self.reading() as connection:
            return connection.execute(sql, values).fetchall()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection of the caller's own, for many reads: others of this process do not wait for them."""
        with self.translate_errors(), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA query_only = ON")
            yield connection

    @property
    def is_current(self) -> bool:
        """False once the file was replaced or deleted since it was opened."""
        return _identity(self.path) == self._file

    def erase(self, traces: Sequence[bytes]) -> None:
        """Make sure that what was deleted is in no byte of the file or of its write-ahead log.

        Deleted values are overwritten at once, but SQLite may have left copies where it moved rows. Where one of the
        traces is found, the file is written anew, for which writers wait.

        Args:
            traces: parts of what was deleted that no other row has.

        Raises:
            LogUnavailable: also where another process reads for long; then call this again.
        """
        with self.translate_errors(), self._write_lock:
            self._checkpoint()
            if erasure.contains(self.path, traces):
                self._writer.execute(f"PRAGMA busy_timeout = {1000 * LOCKED_SECONDS:.0f}")
                try:
                    self._writer.execute("VACUUM")
                finally:
                    self._writer.execute("PRAGMA busy_timeout = 0")
                self._checkpoint()

    def _checkpoint(self) -> None:
        """Move all that is in the write-ahead log into the file, and empty it."""
        deadline = time.monotonic() + LOCKED_SECONDS
        while self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise LogUnavailable(
                    f"{self.path} is read by another process without a pause, so what was deleted stays in "
                    f"{self.path.name}-wal: run this again"
                )
            time.sleep(0.05)

    def write(self, action: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run an action in a transaction and return its result; then the change is on the disk.

        The transaction may be shared with other threads' writes. A disk syncs as fast for many rows as for one:
        where that takes 5 ms, sharing is what makes more than 200 requests a second possible.
        """
        mine = _Write(action)
        self._waiting.append(mine)
        with self._write_lock:
            if not mine.done:
                self._commit([self._waiting.popleft() for _ in range(len(self._waiting))])
        if mine.error is not None:
            raise mine.error
        return mine.result

    def write_at_once(self, action: Callable[[sqlite3.Connection], Any]) -> Any:
        """Do what `write` does, but wait for no other writer.

        Raises:
            Busy: there is one; nothing was done.
        """
        mine = _Write(action)
        if not self._write_lock.acquire(blocking=False):
            raise Busy
        try:
            self._commit([mine], wait=False)
        finally:
            self._write_lock.release()
        if mine.error is not None:
            raise mine.error
        return mine.result

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Raise LogUnavailable or DamagedLog for errors of SQLite and the disk, and for an UnreadableRow."""
        try:
            yield
        except LogUnavailable:
            raise
        except (sqlite3.Error, OSError, UnreadableRow) as error:
            raise self._translated(error) from error

    def _commit(self, writes: list[_Write], *, wait: bool = True) -> None:
        """Run writes in one transaction.

        Args:
            writes: get their results and errors.
            wait: for other processes; where not, Busy is the error if one writes.
        """
        begun = False
        try:
            with self.translate_errors():
                if _identity(self.path) != self._file:
                    raise LogUnavailable(f"{self.path} was moved or deleted while in use: start this process again")
                self._begin(wait=wait)
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
            if begun and len(writes) > 1:  # one may be at fault: try each in a transaction of its own
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

    def _begin(self, *, wait: bool = True) -> None:
        # SQLite's own waiting backs off to 100 ms: four busy processes saw 430 ms at worst, and 150 ms this way.
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not _has_code(error, sqlite3.SQLITE_BUSY):
                    raise
                if not wait:
                    raise Busy from None
                if time.monotonic() > deadline:
                    raise
            time.sleep(random.uniform(0.0002, 0.001))

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=LOCKED_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # a prediction is somebody's: deleted is overwritten
        connection.execute("PRAGMA journal_size_limit = 67108864")
        return connection

    def _prepare(self) -> None:
        """Make the tables unless they are there, or bring them up to date; of several processes one does."""
        deadline = time.monotonic() + LOCKED_SECONDS
        while True:  # SQLite's timeout does not cover the change to WAL
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
                if not _has_code(error, sqlite3.SQLITE_BUSY) or time.monotonic() > deadline:
                    raise
            time.sleep(0.005)
        self._begin()
        found = self._check_version()
        # In one transaction, `user_version` too: a process that is killed here leaves the tables as they were.
        for statement in (
            self._create
            if found == 0
            else [statement for version in range(found, self._version) for statement in self._migrations[version]]
        ):
            self._writer.execute(statement)
        with contextlib.closing(sqlite3.connect(":memory:")) as expected:
            for statement in self._create:
                expected.execute(statement)
            self._check_columns(_columns(expected))
            self._renew_definitions(_definitions(expected))
        self._writer.execute("COMMIT")

    def _renew_definitions(self, expected: dict[tuple[str, str], str]) -> None:
        """Make triggers and indexes anew that differ from those that `create` makes, or are missing.

        Programs of every version can use a file with either, so its version does not tell them apart.
        """
        found = _definitions(self._writer)
        for (kind, name), sql in expected.items():
            if " ".join(found.get((kind, name), "").split()) != " ".join(sql.split()):
                self._writer.execute(f"DROP {kind} IF EXISTS {name}")
                self._writer.execute(sql)

    def _check_columns(self, expected: dict[str, dict[str, bool]]) -> None:
        """Compare the columns of the tables with those that `create` makes."""
        found = _columns(self._writer)
        for table, columns in expected.items():
            theirs = found.get(table, {})
            missing = sorted(set(columns) - set(theirs))
            needed = sorted(name for name in set(theirs) - set(columns) if theirs[name])  # others may be left out
            if missing or needed:
                differs = f"lacks the column {missing[0]}" if missing else f"has the column {needed[0]} besides"
                raise LogUnavailable(
                    f"{self.path} says that it has schema {self._version}, but its table {table} {differs}: another "
                    "program changed it, so move it and its -wal and -shm files aside, which begins a new log, or put "
                    "a copy of before in its place; nothing was deleted"
                )

    def _check_version(self) -> int:
        # One statement sees one moment: another process may be making the tables.
        version, application, tables = self._writer.execute(
            "SELECT (SELECT user_version FROM pragma_user_version), "
            "(SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_master)"
        ).fetchone()
        if application != self._application_id and (tables or application or version):
            raise LogUnavailable(f"{self.path} is an SQLite database of another program: give the log another path")
        if version > self._version:
            raise LogUnavailable(
                f"{self.path} was written by a newer version of this program (schema {version}, this one reads up to "
                f"{self._version}): install that version, or give the log another path"
            )
        return int(version)

    def _translated(self, error: Exception) -> LogUnavailable:
        if isinstance(error, UnreadableRow) or _has_code(error, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return DamagedLog(
                f"{self.path} is damaged ({error}): move it and its -wal and -shm files aside, which begins a new log, "
                f"and save what is readable with `sqlite3 {self.path} .recover`; nothing was deleted"
            )
        if isinstance(error, sqlite3.ProgrammingError):
            return LogUnavailable(f"{self.path} was closed by this process: open the log again")
        if _has_code(error, sqlite3.SQLITE_FULL) or getattr(error, "errno", 0) == errno.ENOSPC:
            return LogUnavailable(f"the disk of {self.path} is full: free some space")
        if _has_code(error, sqlite3.SQLITE_BUSY):
            return LogUnavailable(f"{self.path} was locked by another process for {LOCKED_SECONDS:.0f} s: try again")
        return LogUnavailable(
            f"{self.path} cannot be used ({error}): check that its folder exists, is writable and its disk works"
        )


def _has_code(error: Exception, *codes: int) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in codes


def _columns(connection: sqlite3.Connection) -> dict[str, dict[str, bool]]:
    """Return table -> column -> whether an INSERT must give it a value."""
    found: dict[str, dict[str, bool]] = {}
    for table, column, is_needed in connection.execute(
        'SELECT t.name, c.name, c."notnull" AND c.dflt_value IS NULL FROM sqlite_master t '
        "JOIN pragma_table_info(t.name) c WHERE t.type = 'table'"
    ):
        found.setdefault(table, {})[column] = bool(is_needed)
    return found


def _definitions(connection: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Return the SQL of triggers and indexes, by kind and name."""
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('trigger', 'index') AND sql > ''"
    )
    return {(kind, name): sql for kind, name, sql in rows}


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
