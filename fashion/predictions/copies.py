"""Other files of the log in a folder: moved aside, copied by a person, or of a home that a backup replaced."""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable
from fashion.predictions.schema import APPLICATION_ID
from fashion.storage import erasure
from fashion.storage.sqlite import application_id, files_of


class UnusableCopy(LogUnavailable):
    """A copy of the log cannot be opened, or not all of it can be read."""


def find(root: Path, *, passed_over: Collection[Path] = ()) -> list[Path]:
    """Return the files of the log, damaged ones too, in a folder and its folders.

    Args:
        root: the folder.
        passed_over: files and folders that are not looked at.

    Raises:
        OSError: a file or folder cannot be read.
    """
    return [path for path in erasure.files(root, passed_over) if application_id(path) == APPLICATION_ID]


def holds(path: Path, prediction_id: str) -> bool:
    """True if an id stands in any byte of a log, or of what was not yet moved into its file. Opens no database.

    Args:
        path: of the log, damaged or not.
        prediction_id: a uuid7 in lower case.

    Raises:
        OSError: the file cannot be read.
    """
    return any(erasure.contains(each, [prediction_id.encode()]) for each in files_of(path) if each.exists())


@contextlib.contextmanager
def open_copy(path: Path) -> Iterator[PredictionLog]:
    """Open a copy, and check all of it. One of an older version is brought up to date.

    Args:
        path: from `find`.

    Raises:
        UnusableCopy: it is damaged, of a newer version, or cannot be written.
    """
    try:
        log = PredictionLog(path)
    except LogUnavailable as error:
        raise UnusableCopy(_reason(error)) from error
    with log:
        try:
            finding = log.database.scan("PRAGMA quick_check(1)")[0][0]
        except LogUnavailable as error:
            raise UnusableCopy(_reason(error)) from error
        if finding != "ok":
            raise UnusableCopy(" ".join(str(finding).split()))
        yield log


def _reason(error: LogUnavailable) -> str:
    """What is wrong with the file; the remedies of a log that is in use are not those of a copy."""
    cause = error.__cause__
    return str(cause if isinstance(cause, sqlite3.Error | OSError) else error)
