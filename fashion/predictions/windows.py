"""Which predictions a drift decision looks at, read from either log in batches of columns. Knows no tests.

A window is of what was answered: rows of the role champion, of whichever version served at the time.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fashion.home import Home
from fashion.images.statistics import STATISTICS
from fashion.model.predictor import EMBEDDING_SIZE, Predictions
from fashion.predictions.firestore import FirestoreLog
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import FOREVER_US, UNLABELLED, DamagedLog, LoggedPrediction, LogUnavailable, pages

BATCH_ROWS = 10_000
ALL_ROWS = 10**12


@dataclass(frozen=True)
class Window:
    """Rows of since <= time < until; with `rows`, only the latest so many of them."""

    since_us: int
    until_us: int
    rows: int | None = None


@dataclass(frozen=True, eq=False)
class Batch:
    """Consecutive rows of a window, as columns."""

    predictions: Predictions
    true_labels: NDArray[np.int64]
    """(N,), UNLABELLED where nobody said."""
    times_us: NDArray[np.int64]
    """(N,)"""
    prediction_ids: Sequence[str]
    image_sha256: Sequence[str]
    model_versions: Sequence[str]

    def __len__(self) -> int:
        return len(self.times_us)

    def of(self, model_version: str) -> "Batch":
        """The rows of one version."""
        kept = [row for row, version in enumerate(self.model_versions) if version == model_version]
        return self if len(kept) == len(self) else self[kept]

    def __getitem__(self, rows: Sequence[int]) -> "Batch":
        return Batch(
            self.predictions[rows],
            self.true_labels[rows],
            self.times_us[rows],
            *(
                [column[row] for row in rows]
                for column in (self.prediction_ids, self.image_sha256, self.model_versions)
            ),
        )


class LocalRows:
    """Rows of this machine's log."""

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self.address = str(log.path)

    def batches(self, window: Window) -> Iterator[Batch]:
        """The window, in no particular order.

        Raises:
            fashion.predictions.record.LogUnavailable: the log cannot be read.
        """
        for found in self._log.columns(window.since_us, window.until_us, role="champion", newest=window.rows):
            width = found.statistics.shape[1] == len(STATISTICS) and found.embeddings.shape[1] == EMBEDDING_SIZE
            if not width:
                raise DamagedLog(f"{self.address} holds rows of another kind, such as {found.prediction_ids[0]}")
            predictions = Predictions(
                found.labels, found.confidences, found.probabilities, found.statistics, found.embeddings
            )
            yield Batch(
                predictions,
                found.true_labels,
                found.times_us,
                found.prediction_ids,
                found.image_sha256,
                found.model_versions,
            )

    def judged(self) -> Iterator[LoggedPrediction]:
        """Rows with feedback, newest first."""
        return self._log.latest(ALL_ROWS, role="champion", judged=True)

    def later(self, window: Window) -> int:
        """How many rows are dated after the window: of a clock that was set back."""
        return self._log.count(window.until_us, role="champion")


class FirestoreRows:
    """Rows of all machines."""

    def __init__(self, log: FirestoreLog) -> None:
        self._log = log
        self.address = log.address

    def batches(self, window: Window) -> Iterator[Batch]:
        """As for LocalRows.

        Raises:
            fashion.predictions.firestore.FirestoreUnavailable: Firestore cannot be read.
            fashion.predictions.record.DamagedLog: a document is not a prediction.
        """
        rows = (
            self._log.read_window(window.since_us, window.until_us)
            if window.rows is None
            else self._log.latest(window.rows)
        )
        yield from _batches(row for row in self._sound(rows) if row.record.role == "champion")

    def judged(self) -> Iterator[LoggedPrediction]:
        """As for LocalRows."""
        return (row for row in self._sound(self._log.latest(ALL_ROWS)) if row.feedback)

    def later(self, window: Window) -> int:
        """As for LocalRows; counted up to a thousand."""
        if window.until_us >= FOREVER_US:
            return 0
        rows = self._sound(self._log.read_window(window.until_us, FOREVER_US))
        return sum(1 for _, row in zip(range(1000), rows, strict=False) if row.record.role == "champion")

    def _sound(self, rows: Iterator[LoggedPrediction]) -> Iterator[LoggedPrediction]:
        try:
            yield from rows
        except ValueError as error:
            raise DamagedLog(f"{self.address} is damaged: {error}; mend or delete that document") from error


Source = LocalRows | FirestoreRows


def open_source(home: Home, kind: str = "auto") -> Source:
    """The log: that of all machines where there is one, unless `kind` says `local` or `firestore`.

    Raises:
        fashion.predictions.record.LogUnavailable: there is none, or it cannot be opened.
        fashion.predictions.firestore.FirestoreUnavailable: its library is missing.
    """
    if kind == "firestore" or (kind == "auto" and home.firestore):
        if not home.firestore:
            raise LogUnavailable("source=firestore, but FASHION_FIRESTORE names no project: set it, or source=local")
        project, _, database = home.firestore.partition("/")
        return FirestoreRows(FirestoreLog(project, database=database or "(default)"))
    if not home.predictions.exists():
        raise LogUnavailable(f"there is no prediction log {home.predictions}: `make serve` begins one")
    return LocalRows(PredictionLog(home.predictions))


def batch(rows: Sequence[LoggedPrediction]) -> Batch:
    """Rows as columns."""
    records = [row.record for row in rows]
    labels = [UNLABELLED if row.true_label is None else row.true_label for row in rows]
    predictions = Predictions(
        labels=np.array([record.label for record in records], np.int64),
        confidences=np.array([record.confidence for record in records], np.float32),
        probabilities=_matrix([record.probabilities for record in records], len(records[0].probabilities)),
        statistics=_matrix([record.statistics for record in records], len(STATISTICS)),
        embeddings=_matrix([record.embedding for record in records], EMBEDDING_SIZE).astype(np.float16),
    )
    return Batch(
        predictions,
        np.array(labels, np.int64),
        np.array([record.time_us for record in records], np.int64),
        [record.prediction_id for record in records],
        [record.image_sha256 for record in records],
        [record.model_version for record in records],
    )


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches of equal width as one."""
    if len(batches) == 1:
        return batches[0]
    parts = [each.predictions for each in batches]
    return Batch(
        Predictions(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in dataclasses.fields(Predictions)
            )
        ),
        np.concatenate([each.true_labels for each in batches]),
        np.concatenate([each.times_us for each in batches]),
        *(
            [value for each in batches for value in getattr(each, name)]
            for name in ("prediction_ids", "image_sha256", "model_versions")
        ),
    )


def _batches(rows: Iterator[LoggedPrediction]) -> Iterator[Batch]:
    # Of one number of classes each: versions of different models may share a log.
    for page in pages(rows, BATCH_ROWS):
        for width in sorted({len(row.record.probabilities) for row in page}):
            yield batch([row for row in page if len(row.record.probabilities) == width])


def _matrix(rows: Sequence[Sequence[float]], width: int) -> NDArray[np.float32]:
    """Rows of equal length; one of another length becomes NaN, which no test counts."""
    return np.array([row if len(row) == width else [np.nan] * width for row in rows], np.float32).reshape(-1, width)
