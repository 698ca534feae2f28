"""SQLite files: their address for SQLAlchemy, and copies of one that is in use. Knows no tables."""

import contextlib
import re
import sqlite3
import urllib.parse
from pathlib import Path

PLAIN = re.compile(r"[^%?#]*")
"""Paths that an address may hold as they are."""
HEADER = b"SQLite format 3\x00"
LOCKED_SECONDS = 10.0
"""How long a check waits for a process that locks the file."""
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


def application_id(path: Path) -> int | None:
    """Return the number by which a program knows its databases, 0 for one without; None for a file of another kind.

    A damaged database has one too.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        header = file.read(72)
    if not header.startswith(HEADER):
        return None
    number = int.from_bytes(header[68:72], "big")
    if number == 0 and path.with_name(f"{path.name}-wal").exists():  # where its program was killed, it may be there
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database,
        ):
            (number,) = database.execute("PRAGMA application_id").fetchone()
    return int(number)


def files_of(path: Path) -> tuple[Path, Path, Path]:
    """Return a database and the two files that may stand beside it: its write-ahead log and that one's index."""
    return path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def check(path: Path) -> None:
    """Open a database and read which tables it has. Makes nothing where there is none.

    Raises:
        sqlite3.DatabaseError: the file is damaged, cut off, or locked for LOCKED_SECONDS; its `filename` is the path.
    """
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=LOCKED_SECONDS)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            (size,) = database.execute(
                "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            ).fetchone()
            in_file = path.with_name(f"{path.name}-wal").exists() or path.stat().st_size >= size
        if not in_file:
            raise damaged(f"{path.stat().st_size:,} of {size:,} bytes are there", path)
    except sqlite3.DatabaseError as error:
        error.filename = str(path)  # type: ignore[attr-defined]
        raise


def damaged(reason: str, path: Path) -> sqlite3.DatabaseError:
    """Return the error that SQLite raises for a damaged file."""
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.filename = str(path)  # type: ignore[attr-defined]
    return error


def copy(source: Path, target: Path) -> None:
    """Copy a database as it is at one moment, while other processes may write to it.

    Args:
        source: the database.
        target: a file that does not exist yet.

    Raises:
        sqlite3.DatabaseError: the source is damaged, or locked for WAIT_SECONDS; its `filename` is the path.
    """
    # Not read-only: the log is in WAL mode, whose shared memory a reader may have to make.
    try:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=WAIT_SECONDS)) as original,
            contextlib.closing(sqlite3.connect(target)) as copied,
        ):
            original.backup(copied)
            (finding,) = copied.execute("PRAGMA quick_check(1)").fetchone()
        if finding != "ok":
            raise damaged(finding, source)
    except sqlite3.DatabaseError as error:
        error.filename = str(source)  # type: ignore[attr-defined]
        raise
