"""A home that was moved, copied or restored: the paths that MLflow and Metaflow store are changed to where it is now.

Both store absolute paths of artifacts. Without this, a moved home would look for its models where it was, and a copy
would go on using the original's.
"""

import contextlib
import fcntl
import os
import re
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from fashion.state import faults, record
from fashion.state.record import StateError

DATABASE = "mlflow.db"
ARTIFACTS = "mlflow-artifacts"
METAFLOW = Path("metaflow", ".metaflow")
LOCK = "home.lock"
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow's database holds addresses of artifacts."""
WAIT_SECONDS = 30.0
"""How long to wait for another process that writes to the database."""


def settle(root: Path) -> None:
    """Make what a home stores agree with its path, and record the path. Does nothing where it has not moved.

    Interrupted, it is done again by the next call: the record is written last.

    Args:
        root: the home, an absolute path without links; it exists.

    Raises:
        StateError: the home cannot be changed, or its database is damaged or locked.
    """
    known = record.read(root)
    if known is not None and known.path == str(root):
        return
    try:
        with _one_process(root):
            known = record.read(root)
            old = _recorded_path(root) if known is None else known.path
            if old is not None and old != str(root):
                move_database(root / DATABASE, old, str(root))
                move_metadata(root / METAFLOW, old, str(root))
            record.write(root, before=known)
    except (OSError, sqlite3.DatabaseError) as error:
        fault = faults.find(error, root / DATABASE if isinstance(error, sqlite3.DatabaseError) else root)
        raise StateError(f"{root} cannot be used ({error})" if fault is None else fault.sentence) from error


def move_database(path: Path, old: str, new: str) -> None:
    """Change the addresses in an MLflow database from one home to another, all of them or none.

    Args:
        path: the database; nothing is done where there is none.
        old: path of the home until now.
        new: path of the home from now on.

    Raises:
        sqlite3.DatabaseError: it is damaged, or locked for WAIT_SECONDS.
    """
    if not path.exists():
        return
    prefixes = {old: new, Path(old).as_uri(): Path(new).as_uri()}
    with contextlib.closing(sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)) as database:
        database.execute("BEGIN IMMEDIATE")
        for table, column in COLUMNS:
            if column not in {row[1] for row in database.execute(f"PRAGMA table_info({table})")}:
                continue  # of another version of MLflow
            for before, after in prefixes.items():
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                    (f"{after}/", len(before) + 2, len(before) + 1, f"{before}/"),
                )
        database.execute("COMMIT")


def move_metadata(folder: Path, old: str, new: str) -> None:
    """Change the addresses in Metaflow's metadata from one home to another.

    Args:
        folder: Metaflow's datastore; nothing is done where there is none.
        old: path of the home until now.
        new: path of the home from now on.
    """
    before, after = (os.fsencode(os.path.join(path, METAFLOW)) for path in (old, new))  # noqa: PTH118
    for path in folder.glob("*/*/*/*/_meta/*.json"):
        content = path.read_bytes()
        if before in content:
            temporary = path.with_suffix(".part")
            temporary.write_bytes(content.replace(before, after))
            temporary.replace(path)


def _recorded_path(root: Path) -> str | None:
    """Where a home of an older version was, by what it stores; None where nothing tells."""
    path = root / DATABASE
    if path.exists():
        with contextlib.closing(sqlite3.connect(path, timeout=WAIT_SECONDS)) as database:
            if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
                for (location,) in database.execute("SELECT artifact_location FROM experiments"):
                    old, _, name = str(location).rpartition(f"/{ARTIFACTS}/")
                    before = urllib.parse.unquote(old.removeprefix("file://")) if old.startswith("file:") else old
                    # FASHION_ARTIFACTS may have named a folder elsewhere, which has not moved.
                    if before and ((root / ARTIFACTS / name).is_dir() or not Path(before, ARTIFACTS, name).is_dir()):
                        return before
    for path in (root / METAFLOW).glob("*/*/*/*/_meta/*_artifact_name.json"):
        found = re.search(rf":root:([^\"]+)/{METAFLOW}", path.read_text(encoding="utf-8"))
        return found[1] if found else None
    return None


@contextlib.contextmanager
def _one_process(root: Path) -> Iterator[None]:
    with (root / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
