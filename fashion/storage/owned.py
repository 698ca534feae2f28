"""Folders that belong to a running process: whatever ends it, the next process finds them, and clears them away.

A lock that the system releases with the process says whether it runs. Knows nothing of what a folder holds.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def claim(parent: Path) -> Iterator[Path]:
    """A new folder in `parent`. It belongs to this process, and is removed after the block.

    If the block leaves a file `left` in it, the folder stays, and is found as if this process had been killed.
    """
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        folder = parent / secrets.token_hex(6)
        lock = _lock_path(folder).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_at(lock, _lock_path(folder)):  # else another process removed the file before it was locked
            break
        lock.close()
    with lock:
        folder.mkdir()
        try:
            yield folder
        finally:
            if not (folder / "left").exists():
                _remove(folder)


def clear_abandoned(parent: Path, *, first: Callable[[Path], None] = lambda _: None) -> None:
    """Remove the folders of processes that have ended. Those that others are clearing are passed over.

    Args:
        parent: of the folders.
        first: called with each folder before it is removed; if it raises, the folder stays.
    """
    for path in sorted(parent.glob("*.lock")):
        with contextlib.suppress(FileNotFoundError), path.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # its process runs
                continue
            if _is_at(lock, path):
                first(path.with_suffix(""))
                _remove(path.with_suffix(""))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for the temporary files of this process and of those that it starts, while the block runs.

    It is in the system's folder for such files. What a killed process left there is removed first.
    """
    clear_temporary()
    with claim(_temporary_parent()) as folder:
        before, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), str(folder)
        tempfile.tempdir = None  # so that it is read from the environment anew
        try:
            yield folder
        finally:
            os.environ.pop("TMPDIR")
            if before is not None:
                os.environ["TMPDIR"] = before
            tempfile.tempdir = None


def clear_temporary() -> None:
    """Remove temporary folders of flows that were killed. One that cannot be removed is left alone."""
    with contextlib.suppress(OSError):
        clear_abandoned(_temporary_parent())


def _temporary_parent() -> Path:
    return Path(tempfile.gettempdir(), f"fashion-{os.getuid()}")


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _lock_path(folder).unlink(missing_ok=True)
