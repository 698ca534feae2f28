"""Errors that tell of the machine, not of the program: what is full, denied, damaged, locked or too small.

One place knows them, so that every command and every task ends with one sentence and its remedy.
"""

import errno
import re
import sqlite3
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|std::bad_alloc", re.IGNORECASE)
"""In messages of torch and ONNX Runtime, whose classes say nothing."""
LESS_MEMORY = "lower training.batch_size or tuning.num_workers, end other programs, or use a machine with more memory"


@dataclass(frozen=True)
class Fault:
    """What is wrong with the machine."""

    sentence: str
    """With the remedy."""
    may_pass: bool = False
    """True if a retry a little later may succeed."""


def find(error: BaseException, root: Path) -> Fault | None:
    """Return what is wrong with the machine if that is what raised an error; None for an error of another kind.

    Args:
        error: what was raised; the errors that it followed from are looked at too.
        root: the home, or a file in it, which is named where the error names no file.
    """
    chain = list(_chain(error))
    for each in chain:
        if (fault := _of_one(each, root, chain)) is not None:
            return fault
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """True for Python's, torch's and ONNX Runtime's ways to say that memory is used up."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that it followed from: libraries raise their own in place of the system's."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__, getattr(each, "orig", None)]


def _of_one(error: BaseException, root: Path, chain: list[BaseException]) -> Fault | None:
    place = getattr(error, "filename", None) or root
    if is_out_of_memory(error):
        return Fault(f"out of memory: {LESS_MEMORY}")
    if isinstance(error, sqlite3.DatabaseError):
        return _of_sqlite(error, root, chain)
    if isinstance(error, UnicodeEncodeError) and error.encoding in ("ascii", "latin-1", "iso8859-1"):
        return Fault(f"{error.object[error.start : error.end]!r} cannot be written in this locale: set LC_ALL=C.UTF-8")
    is_system = isinstance(error, OSError) and not isinstance(error, ssl.SSLError)  # whose numbers are OpenSSL's
    number = getattr(error, "errno", None) if is_system else None
    if number in FULL:
        return Fault(_full(place))
    if number in DENIED:
        return Fault(
            f"{place} cannot be used ({error.strerror}): give this user the right to write there, or set FASHION_HOME "  # type: ignore[attr-defined]
            "to another folder"
        )
    if number == errno.EMFILE:
        return Fault("too many files are open: raise the limit with `ulimit -n 4096`")
    if number == errno.EIO:
        return Fault(f"the disk of {place} does not work (input/output error): look at the system's log")
    return None


def _of_sqlite(error: sqlite3.DatabaseError, root: Path, chain: list[BaseException]) -> Fault | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    modules = {type(each).__module__.partition(".")[0] for each in chain}
    path = getattr(error, "filename", root / "mlflow.db" if "mlflow" in modules else root)
    if code == sqlite3.SQLITE_FULL:
        return Fault(_full(path))
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Fault(
            f"{path} is damaged ({error}): bring a backup back with `fashion home restore FILE --force`, or move the "
            "file away, which begins a new registry; nothing was deleted"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Fault(f"{path} is locked by another process: end it, or try again later", may_pass=True)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return Fault(f"{path} cannot be used ({error}): check that it is a file in a folder that this user can write")
    if code == sqlite3.SQLITE_IOERR:
        return Fault(f"the disk of {path} does not work ({error}): look at the system's log")
    return None


def _full(place: object) -> str:
    return f"the disk of {place} is full: free some space (`fashion gc` lists what can go), and start again"
