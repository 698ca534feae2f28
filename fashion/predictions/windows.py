"""Which predictions a drift decision looks at, read in batches from this machine's log or from Firestore.

A window holds rows of the role champion, of whichever versions served at the time. Knows no tests and no decisions.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fashion.home import Home
from fashion.predictions.batch import Batch, from_logged, from_rows
from fashion.predictions.firestore import FirestoreLog, open_firestore
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, DamagedLog, LoggedPrediction, LogUnavailable, pages

BATCH_ROWS = 10_000
ALL_ROWS = 10**12
MAX_COUNT = 1000
"""Rows of Firestore that are counted at most: each one counted is read, and paid for."""


@dataclass(frozen=True)
class Window:
    """Rows of since <= time < until."""

    since_us: int
    """Microseconds since 1970, UTC."""
    until_us: int
    """Microseconds since 1970, UTC."""
    rows: int | None = None
    """Only this many rows, the latest ones; None for all."""


class LocalRows:
    """Rows of this machine's log."""

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self.address = str(log.path)

    def batches(self, window: Window) -> Iterator[Batch]:
        """Yield the window, in no particular order.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        for page in self._log.row_pages(window.since_us, window.until_us, role="champion", newest=window.rows):
            with self._log.database.translate_errors():
                batches = list(from_rows(page))
            yield from batches

    def labelled(self) -> Iterator[LoggedPrediction]:
        """Yield rows with feedback, newest first.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        return self._log.latest(ALL_ROWS, role="champion", with_feedback=True)

    def count_after(self, window: Window) -> int:
        """Return how many rows are dated after the window: of a clock that was set back.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        return self._log.count(window.until_us, role="champion")


class FirestoreRows:
    """Rows of all machines."""

    def __init__(self, log: FirestoreLog) -> None:
        self._log = log
        self.address = log.address

    def batches(self, window: Window) -> Iterator[Batch]:
        """Yield the window, in no particular order.

        Raises:
            FirestoreUnavailable: Firestore cannot be read.
            DamagedLog: a document is not a prediction.
        """
        rows = (
            self._log.read_window(window.since_us, window.until_us)
            if window.rows is None
            else self._log.latest(window.rows)
        )
        for page in pages((row for row in self._checked(rows) if row.record.role == "champion"), BATCH_ROWS):
            yield from from_logged(page)

    def labelled(self) -> Iterator[LoggedPrediction]:
        """Yield rows with feedback, newest first.

        Raises:
            FirestoreUnavailable: Firestore cannot be read.
            DamagedLog: a document is not a prediction.
        """
        return (row for row in self._checked(self._log.latest(ALL_ROWS)) if row.feedback)

    def count_after(self, window: Window) -> int:
        """Return how many rows are dated after the window, of the first MAX_COUNT documents there.

        Raises:
            FirestoreUnavailable: Firestore cannot be read.
            DamagedLog: a document is not a prediction.
        """
        if window.until_us >= FOREVER_US:
            return 0
        rows = self._checked(self._log.read_window(window.until_us, FOREVER_US))
        return sum(1 for _, row in zip(range(MAX_COUNT), rows, strict=False) if row.record.role == "champion")

    def _checked(self, rows: Iterator[LoggedPrediction]) -> Iterator[LoggedPrediction]:
        try:
            yield from rows
        except ValueError as error:
            raise DamagedLog(f"{self.address} is damaged: {error}; correct or delete that document") from error


Source = LocalRows | FirestoreRows


def open_source(home: Home, kind: str = "auto") -> Source:
    """Open the log to read windows from.

    Args:
        home: names the local log and the Firestore project.
        kind: `local`, `firestore`, or `auto`: Firestore where `home` names a project, else the local log.

    Raises:
        LogUnavailable: there is no log, it cannot be opened, or no project is named.
        FirestoreUnavailable: the package google-cloud-firestore is missing.
    """
    if kind == "firestore" or (kind == "auto" and home.firestore):
        if not home.firestore:
            raise LogUnavailable("source=firestore, but FASHION_FIRESTORE names no project: set it, or source=local")
        return FirestoreRows(open_firestore(home.firestore))
    if not home.predictions.exists():
        raise LogUnavailable(f"there is no prediction log {home.predictions}: `make serve` begins one")
    return LocalRows(PredictionLog(home.predictions))
