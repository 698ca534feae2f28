"""SQLite files: their address for SQLAlchemy, and copies of one that is in use. Knows no tables."""

import contextlib
import re
import sqlite3
import urllib.parse
from pathlib import Path

PLAIN = re.compile(r"[^%?#]*")
"""Paths that an address may hold as they are."""
HEADER = b"SQLite format 3\x00"
WAIT_SECONDS = 30.0
"""How long a copy waits for a writer."""


def url(path: Path) -> str:
    """Return the address of a SQLite file, as SQLAlchemy, MLflow and Optuna read it.

    Characters that mean something in an address are escaped. Such an address names the driver too: MLflow would make
    the folder of one that begins with `sqlite:///`, with the escapes in its name.
    """
    if PLAIN.fullmatch(str(path)):
        return f"sqlite:///{path}"
    return f"sqlite+pysqlite:///{urllib.parse.quote(str(path))}"


def path_of(address: str) -> Path | None:
    """Return the file that an address names; None for the address of anything else."""
    scheme, _, rest = address.partition("://")
    if scheme.partition("+")[0] != "sqlite" or not rest.startswith("/"):
        return None
    return Path(urllib.parse.unquote(rest[1:].partition("?")[0]))


def is_database(path: Path) -> bool:
    """True if a file begins as SQLite's do; whether the rest is sound is not looked at."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER


def copy(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, while other processes may write to it.

    Args:
        source: the database.
        target: a file that does not exist yet.

    Raises:
        sqlite3.DatabaseError: the source is damaged, or locked for WAIT_SECONDS.
    """
    # Not read-only: the log is in WAL mode, whose shared memory a reader may have to make.
    with (
        contextlib.closing(sqlite3.connect(source, timeout=WAIT_SECONDS)) as original,
        contextlib.closing(sqlite3.connect(target)) as copied,
    ):
        original.backup(copied)
        (finding,) = copied.execute("PRAGMA quick_check(1)").fetchone()
    if finding != "ok":
        raise sqlite3.DatabaseError(f"{source} is damaged: {finding}")
