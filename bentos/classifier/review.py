"""The review page: which predictions are worth a label, the labels, and the accuracy that follows. Knows no HTTP.

Half of what is shown is drawn at random, so that accuracy is estimated of all predictions and not of the doubtful ones
(`fashion.predictions.random_share`). Who judges does not see the answer first: it would be agreed with too often.
"""

import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from bentos.classifier.records import Records, has_classes
from bentos.classifier.schemas import ReviewAccuracy, ReviewItem, ReviewQueue, data_url
from bentos.classifier.unlike import Unlike
from fashion.home import user
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.predictions import random_share
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import REVIEW, LoggedPrediction, ModelId
from fashion.predictions.shared_log import SharedLog
from fashion.predictions.withdrawal import Decision
from fashion.storage.blobs import BlobNotFound, Store

ROWS = 5000
"""Latest predictions that are looked at."""
AT_ONCE = 20
"""Pictures that are sent at once."""
KEEP_SECONDS = 20.0
"""How long the rows that were read are used for more requests."""
RANDOM = "drawn at random"
KINDS = ("random", "unsure", "random", "unusual", "random", "shadow", "random", "labelled")
"""What follows what, as far as there is any: every other picture is drawn at random."""


class Review:
    """Predictions of the served model that wait for a label. Safe to call from threads."""

    def __init__(
        self,
        log: PredictionLog,
        remote: SharedLog | None,
        images: Store,
        *,
        model: ModelId,
        class_names: Sequence[str],
        unlike: Unlike,
        records: Records,
    ) -> None:
        """
        Args:
            log: of this machine.
            remote: the log that machines share, if there is one.
            images: where pictures are stored.
            model: what is served here.
            class_names: of the model.
            unlike: knows which pictures are unusual.
            records: stores labels.
        """
        self._log, self._remote, self._images, self._records = log, remote, images, records
        self._model, self._class_names, self._unlike = model, class_names, unlike
        self._lock = threading.Lock()
        self._rows: list[LoggedPrediction] = []
        self._until = 0.0
        self._missing: set[str] = set()
        self._by_picture: dict[str, int] = {}
        """Label by a review of any prediction on the picture."""
        self._labels: dict[str, int | None] = {}
        """Of this worker, as long as the rows that were read do not have them; None where a label was undone."""

    def queue(self, shown: Sequence[str] = (), skipped: Sequence[str] = ()) -> ReviewQueue:
        """Return the next predictions to judge, and what is known so far.

        Args:
            shown: ids of predictions that the page holds already.
            skipped: those of pictures of which nobody can tell what they are: the accuracy is that of the others.

        Raises:
            fashion.predictions.record.LogUnavailable: the log cannot be read.
            fashion.storage.blobs.StoreUnavailable: the pictures cannot be read.
        """
        with self._lock:
            rows = self._read()
            self._by_picture = {}
            for row in reversed(rows):
                if (label := self._own_label(row)) is not None:
                    self._by_picture[row.record.image_sha256] = label
            left_out = {row.record.image_sha256 for row in rows if row.record.prediction_id in skipped}
            items = list(itertools.islice(self._items(rows, set(shown), left_out), AT_ONCE))
            rows = [row for row in rows if row.record.image_sha256 not in self._missing]
            return ReviewQueue(
                class_names=tuple(self._class_names),
                items=tuple(items),
                judged=sum(self._label(row) is not None for row in rows),
                predictions=len(rows),
                without_picture=len(self._rows) - len(rows),
                accuracy=self._accuracy([row for row in rows if row.record.image_sha256 not in left_out]),
            )

    def label(self, prediction_id: str, true_label: str) -> str:
        """Store what a picture is, as a review, and return what the model had said.

        Args:
            prediction_id: of the queue.
            true_label: a class by name.

        Raises:
            bentos.web.responses.ApiError: the prediction is unknown, or the label is not a class.
        """
        record, label = self._records.store_review(prediction_id, true_label)
        with self._lock:
            self._labels[prediction_id] = label
        return self._class_names[record.label]

    def undo(self, prediction_id: str) -> None:
        """Let the reviews of a prediction count no more; they stay stored.

        Args:
            prediction_id: of the queue.
        """
        now_us = time.time_ns() // 1000
        until_us = now_us + 1  # what is judged after this counts
        decision = Decision("discard", REVIEW, prediction_id, 0, until_us, now_us, user(), "undone on the review page")
        for log in (self._remote, self._log):
            if log is not None:
                log.decide([decision])
        with self._lock:
            self._labels[prediction_id] = None

    def _read(self) -> list[LoggedPrediction]:
        """The latest rows of the served model, newest first."""
        if time.monotonic() > self._until:
            found = self._log.latest(ROWS, role="champion") if self._remote is None else self._remote.latest(ROWS)
            self._rows = [row for row in found if has_classes(row.record, self._model.name, self._class_names)]
            self._missing.clear()  # a picture is stored a moment after its prediction
            stored = {row.record.prediction_id: _review_of(row) for row in self._rows}
            # The shared log gets labels a moment later.
            self._labels = {each: label for each, label in self._labels.items() if stored.get(each) != label}
            self._until = time.monotonic() + KEEP_SECONDS
        return self._rows

    def _label(self, row: LoggedPrediction) -> int | None:
        """The class of the row's picture by a review; None without one."""
        return self._by_picture.get(row.record.image_sha256)

    def _own_label(self, row: LoggedPrediction) -> int | None:
        """The class by the latest review of this very row; None without one."""
        if row.record.prediction_id in self._labels:
            return self._labels[row.record.prediction_id]
        return _review_of(row)

    def _items(self, rows: Sequence[LoggedPrediction], held: set[str], left_out: set[str]) -> Iterator[ReviewItem]:
        """Pictures to show, each once.

        Args:
            rows: the latest ones.
            held: ids of predictions that the page holds.
            left_out: sha256 of pictures that are not to be shown.
        """
        shown = left_out | {row.record.image_sha256 for row in rows if row.record.prediction_id in held}
        waiting = [row for row in rows if self._label(row) is None]
        queues = {kind: iter(found) for kind, found in self._by_kind(waiting).items()}
        ended: set[str] = set()
        for kind in itertools.cycle(KINDS):
            if kind in ended:
                continue
            found = next(filter(None, (self._item(row, why, shown) for row, why in queues[kind])), None)
            if found is not None:
                yield found
                continue
            ended.add(kind)
            if ended >= set(KINDS):
                return

    def _by_kind(self, rows: Sequence[LoggedPrediction]) -> dict[str, list[tuple[LoggedPrediction, str]]]:
        """Kind -> rows, those that are most worth a label first, and why they are shown."""
        ids = [row.record.prediction_id for row in rows]
        drawn = sorted(rows, key=lambda row: random_share.draw_order(row.record.prediction_id))
        unsure = sorted(rows, key=lambda row: row.record.confidence)
        shadow = self._shadow(ids)
        return {
            "random": [(row, RANDOM) for row in drawn],
            "unsure": [(row, "the model was unsure") for row in unsure[: len(rows) // 4 + 1]],
            "unusual": [(row, "unlike what the model has learnt") for row in self._unusual(rows)],
            "shadow": [
                (row, "the next version says something else")
                for row in drawn
                if shadow.get(row.record.prediction_id, row.record.label) != row.record.label
            ],
            "labelled": [(row, "somebody has labelled it") for row in drawn if row.feedback],
        }

    def _unusual(self, rows: Sequence[LoggedPrediction]) -> list[LoggedPrediction]:
        mine = [row for row in rows if row.record.model == self._model]
        if self._unlike.typicality is None or not mine:
            return []
        features = np.array([[*row.record.embedding, *row.record.statistics] for row in mine], np.float64)
        distances = self._unlike.typicality.distances_of(features)
        shares = self._unlike.typicality.shares(distances)
        return [mine[index] for index in np.argsort(-distances) if shares[index] < self._unlike.share]

    def _shadow(self, ids: Sequence[str]) -> dict[str, int]:
        """Label by the shadow, of rows of this machine that one has scored."""
        sql = (
            "SELECT prediction_id, label FROM predictions WHERE role = 'shadow' "
            "AND prediction_id IN (SELECT value FROM json_each(?))"
        )
        return dict(self._log.database.read(sql, (json.dumps(list(ids)),)))

    def _item(self, row: LoggedPrediction, why: str, shown: set[str]) -> ReviewItem | None:
        """A picture to show; None if it is shown already or not stored."""
        record = row.record
        if record.image_sha256 in shown or record.image_sha256 in self._missing:
            return None
        try:
            image = image_store.get(self._images, record.image_sha256)
        except (BlobNotFound, DamagedImage):
            self._missing.add(record.image_sha256)
            return None
        shown.add(record.image_sha256)
        return ReviewItem(record.prediction_id, data_url(image_store.to_png(image)), why)

    def _accuracy(self, rows: Sequence[LoggedPrediction]) -> ReviewAccuracy | None:
        labels = [self._label(row) for row in rows]
        found = random_share.estimate(
            np.array([random_share.draw_order(row.record.prediction_id) for row in rows], np.uint64),
            np.array([row.record.time_us for row in rows], np.int64),
            np.array([row.record.confidence for row in rows]),
            [None if label is None else label == row.record.label for label, row in zip(labels, rows, strict=True)],
        )
        if found is None:
            return None
        return ReviewAccuracy(found.accuracy, found.low, found.high, found.drawn, found.rows)


def _review_of(row: LoggedPrediction) -> int | None:
    said = row.judgement
    return said.true_label if said is not None and said.source == REVIEW else None
