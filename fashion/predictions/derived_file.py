"""An SQLite file of what can be read elsewhere: damaged, or of another version, it is made anew. Knows no table."""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fashion.predictions.database import Database, Row
from fashion.predictions.record import LogUnavailable
from fashion.storage import sqlite

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class DerivedFile:
    """The file, opened when it is first used. Safe to call from threads, and from several processes.

    Every method raises LogUnavailable where the disk is full, read-only or broken, or the file is locked for long.
    """

    def __init__(self, path: Path, *, create: Sequence[str], application_id: int, version: int) -> None:
        """
        Args:
            path: the file.
            create: SQL statements that make the tables and set `application_id` and `user_version`.
            application_id: what tells this file from another program's.
            version: of the tables that `create` makes.
        """
        self.path = path
        self._create, self._application_id, self._version = create, application_id, version
        self._opened: Database | None = None
        self._lock = threading.RLock()

    def close(self) -> None:
        """Close the file; it is opened again when it is used again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Return the rows of one SELECT."""
        return self._database().read(sql, values)

    def write(self, action: Callable[[sqlite3.Connection], Any]) -> None:
        """Run an action in a transaction; then the change is on the disk."""
        self._database().write(action)

    def run(self, action: Callable[[], T]) -> T:
        """Run what reads and writes; once more where the file was damaged, or replaced by another process.

        Args:
            action: may find the file empty.
        """
        try:
            return action()
        except OSError as error:
            with self._lock:
                replaced = self._opened is not None and not self._opened.is_current
                damaged = not self._is_usable(whole=True)
                if damaged:
                    self._remove()
            if not replaced and not damaged:
                raise error if isinstance(error, LogUnavailable) else LogUnavailable(str(error)) from error
        return action()

    def _database(self) -> Database:
        with self._lock:
            if self._opened is not None and not self._opened.is_current:
                self.close()
            if self._opened is None:
                if not self._is_usable():
                    self._remove()
                self._opened = Database(
                    self.path,
                    create=self._create,
                    application_id=self._application_id,
                    version=self._version,
                    migrations={},
                )
            return self._opened

    def _remove(self) -> None:
        _logger.warning("%s is damaged or of another version of this program: it is made anew", self.path)
        self.close()
        for path in sqlite.files_of(self.path):
            path.unlink(missing_ok=True)

    def _is_usable(self, *, whole: bool = False) -> bool:
        """Return False for a file that is there and is not one of this version.

        Args:
            whole: look at all of it, which takes a moment.
        """
        if not self.path.exists():
            return True
        uri = f"{self.path.as_uri()}?mode=rw"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=5)) as connection:
                version, application, tables = connection.execute(
                    "SELECT (SELECT user_version FROM pragma_user_version), "
                    "(SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_master)"
                ).fetchone()
                if tables and (version, application) != (self._version, self._application_id):
                    return False
                return not whole or connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        except sqlite3.DatabaseError as error:
            return getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
