"""Which predictions a drift decision looks at, read in batches from this machine's log, the shared one or an export.

A window holds rows of the role champion, of whichever versions served at the time. Knows no tests and no decisions.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fashion.home import Home
from fashion.predictions.address import open_shared_log
from fashion.predictions.batch import Batch, from_logged, from_rows
from fashion.predictions.log import PredictionLog
from fashion.predictions.partition_reader import Export
from fashion.predictions.record import (
    OWN_CLIENTS,
    LoggedPrediction,
    LogUnavailable,
    ModelId,
    UnknownPrediction,
    pages,
)
from fashion.predictions.shared_log import SharedLog
from fashion.predictions.withdrawal import Decision, Decisions
from fashion.storage.address import open_store

BATCH_ROWS = 10_000
ALL_ROWS = 10**12
MAX_COUNT = 1000
"""Rows of the shared log that are counted at most: each one counted is read, and perhaps paid for."""


@dataclass(frozen=True)
class Window:
    """Rows of since <= time < until."""

    since_us: int
    """Microseconds since 1970, UTC."""
    until_us: int
    """Microseconds since 1970, UTC."""
    rows: int | None = None
    """Only this many rows, the latest ones; None for all."""


class LateFeedback(NamedTuple):
    """Feedback on a prediction of before a window."""

    model: ModelId
    label: int
    """The predicted class."""
    true_label: int
    prediction_id: str
    image_sha256: str
    client: str | None


def divide(window: Window, span: tuple[int, int] | None, parts: int) -> list[Window]:
    """Divide a window into parts of equal length, between its first row and its last.

    A window of a number of rows is not divided: where it begins is known once its rows are read.

    Args:
        window: what to divide.
        span: times of its first and last row; None where it has none.
        parts: how many, at most.
    """
    if span is None or window.rows is not None:
        return [window]
    first, last = span
    inner = sorted({first + (last + 1 - first) * part // parts for part in range(1, parts)} - {first})
    bounds = [window.since_us, *inner, window.until_us]
    return [Window(since, until) for since, until in itertools.pairwise(bounds)]


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

    def span(self, window: Window) -> tuple[int, int] | None:
        """Return the times of the window's first and last row, None without rows.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        return self._log.span(window.since_us, window.until_us, role="champion")

    def labelled(self, *, withdrawn: bool = False) -> Iterator[LoggedPrediction]:
        """Yield rows with feedback, newest first.

        Args:
            withdrawn: with feedback that does not count, too.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        return self._log.latest(ALL_ROWS, role="champion", with_feedback=True, withdrawn=withdrawn)

    def decisions(self) -> Decisions:
        """Return all decisions on feedback, the oldest first.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        return self._log.decisions()

    def get(self, prediction_id: str) -> LoggedPrediction:
        """Return one champion's prediction.

        Raises:
            UnknownPrediction: it is not there.
            LogUnavailable: the log cannot be read.
        """
        return self._log.get(prediction_id)

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Store that feedback counts no more, or again.

        Raises:
            LogUnavailable: the log cannot be written.
        """
        self._log.decide(decisions)

    def late_feedback(self, window: Window, oldest_us: int) -> Iterator[LateFeedback]:
        """Yield the feedback that arrived in a window on predictions of before it, in no particular order.

        Args:
            window: of time.
            oldest_us: time of the earliest prediction that is looked at, microseconds since 1970, UTC.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        for page in self._log.late_feedback_pages(window.since_us, window.until_us, oldest_us=oldest_us):
            for *model, label, true_label, prediction_id, image_sha256, client in page:
                yield LateFeedback(ModelId(*model), label, true_label, prediction_id, image_sha256, client)

    def count_after(self, window: Window) -> int:
        """Return how many rows are dated after the window: of a clock that was set back.

        Raises:
            LogUnavailable: the log cannot be read.
        """
        return self._log.count(window.until_us, role="champion")


class SharedRows:
    """Rows of all machines. Every method raises what those of SharedLog raise."""

    def __init__(self, log: SharedLog) -> None:
        self._log = log
        self.address = log.address

    def batches(self, window: Window) -> Iterator[Batch]:
        """Yield the window, in no particular order."""
        rows = (
            self._log.read_window(window.since_us, window.until_us)
            if window.rows is None
            else self._log.latest(window.rows)
        )
        for page in pages((row for row in rows if row.record.role == "champion"), BATCH_ROWS):
            yield from from_logged(page)

    def span(self, window: Window) -> tuple[int, int] | None:
        """Return the times of the window's first row and of the last one, or of the log's where that is earlier."""
        first = next(self._log.read_window(window.since_us, window.until_us, page_rows=1), None)
        last = next(self._log.latest(1, page_rows=1), None)
        if first is None or last is None:
            return None
        return first.record.time_us, max(first.record.time_us, min(last.record.time_us, window.until_us - 1))

    def labelled(self, *, withdrawn: bool = False) -> Iterator[LoggedPrediction]:
        """Yield rows with feedback, newest first; with `withdrawn` with feedback that does not count, too."""
        return self._log.labelled(withdrawn=withdrawn)

    def decisions(self) -> Decisions:
        """Return all decisions on feedback, the oldest first."""
        return self._log.decisions()

    def get(self, prediction_id: str) -> LoggedPrediction:
        """Return one champion's prediction."""
        return self._log.get(prediction_id)

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Store that feedback counts no more, or again."""
        self._log.decide(decisions)

    def late_feedback(self, window: Window, oldest_us: int) -> Iterator[LateFeedback]:
        """Yield the feedback that arrived in a window on predictions of before it; see LocalRows."""
        return _late_feedback(self.labelled(), window, oldest_us)

    def count_after(self, window: Window) -> int:
        """Return how many rows are dated after the window, of the first MAX_COUNT there."""
        return self._log.count_after(window.until_us, most=MAX_COUNT)


class ExportedRows:
    """Rows of a partitioned export. Every method raises what those of Export raise."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.address = export.address

    def batches(self, window: Window) -> Iterator[Batch]:
        """Yield the window, in no particular order."""
        return self._export.batches(window.since_us, window.until_us, newest=window.rows)

    def span(self, window: Window) -> tuple[int, int] | None:
        """Return the times of the window's first and last row, None without rows."""
        return self._export.span(window.since_us, window.until_us)

    def labelled(self, *, withdrawn: bool = False) -> Iterator[LoggedPrediction]:
        """Yield rows with feedback, newest first. Feedback that did not count then was not exported."""
        return self._export.labelled()

    def late_feedback(self, window: Window, oldest_us: int) -> Iterator[LateFeedback]:
        """Yield the feedback that arrived in a window on predictions of before it; see LocalRows."""
        return _late_feedback(self.labelled(), window, oldest_us)

    def decisions(self) -> Decisions:
        """Return none: an export holds no decisions."""
        return Decisions()

    def get(self, prediction_id: str) -> LoggedPrediction:
        """Find no prediction: an export is read by time alone."""
        raise UnknownPrediction(f"predictions of {self.address} are not looked up one by one")

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Store nothing: an export is a copy, whose labels go on counting in accuracy. They are not learnt."""

    def count_after(self, window: Window) -> int:
        """Return how many rows are dated after the window."""
        return self._export.count(window.until_us)


def _late_feedback(labelled: Iterator[LoggedPrediction], window: Window, oldest_us: int) -> Iterator[LateFeedback]:
    """Of rows with feedback, newest first; what is older than `oldest_us` is not read."""
    for row in itertools.takewhile(lambda row: row.record.time_us >= oldest_us, labelled):
        judged = row.judgement
        is_of_others = row.record.client not in OWN_CLIENTS
        if judged and is_of_others and row.record.time_us < window.since_us <= judged.time_us < window.until_us:
            record = row.record
            yield LateFeedback(
                record.model, record.label, judged.true_label, record.prediction_id, record.image_sha256, record.client
            )


Source = LocalRows | SharedRows | ExportedRows


def open_source(home: Home, kind: str = "auto") -> Source:
    """Open the log to read windows from.

    Args:
        home: names the local log and the shared one.
        kind: `local`, `shared`, the address of a partitioned export, or `auto`: the shared log where `home` names one,
            else the local log.

    Raises:
        LogUnavailable: there is no log, it cannot be opened, none is named, or its address is malformed.
        SharedLogUnavailable: the package of its database is missing.
    """
    if "/" in kind:
        return ExportedRows(Export(open_store(kind)))
    if kind in ("shared", "firestore") or (kind == "auto" and home.shared_log):
        if not home.shared_log:
            raise LogUnavailable(f"source={kind}, but FASHION_LOG names no log: set it, or source=local")
        return SharedRows(open_shared_log(home.shared_log))
    if not home.predictions.exists():
        raise LogUnavailable(f"there is no prediction log {home.predictions}: `make serve` begins one")
    return LocalRows(PredictionLog(home.predictions))
