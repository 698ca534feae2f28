"""The review page: which predictions are worth a label, the labels, and the accuracy that follows. Knows no HTTP.

Half of what is shown is drawn at random, so that accuracy is estimated of all predictions and not of the doubtful ones
(`fashion.predictions.random_share`). Who judges does not see the answer first: it would be agreed with too often.
Known pictures are shown among the random ones, in the same order: what is said of them judges who says it.
"""

import itertools
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bentos.classifier.checks import Checks
from bentos.classifier.known_pictures import Showing
from bentos.classifier.records import Records, has_classes
from bentos.classifier.schemas import ReviewAccuracy, ReviewItem, ReviewQueue, data_url
from bentos.classifier.unlike import Unlike
from bentos.web.responses import ApiError
from fashion.home import user
from fashion.images import image_store
from fashion.images.image_store import DamagedImage
from fashion.images.transform import Images
from fashion.predictions import random_share, review_checks, withdrawal
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import OWN_CLIENTS, REVIEW, Feedback, LoggedPrediction, LogUnavailable, ModelId
from fashion.predictions.review_checks import ReviewCheck
from fashion.predictions.shared_log import SharedLog
from fashion.predictions.withdrawal import Decision
from fashion.storage.blobs import BlobNotFound, Store

ROWS = 5000
"""Latest predictions that are looked at."""
AT_ONCE = 20
"""Pictures that are sent at once."""
KEEP_SECONDS = 20.0
"""How long the rows that were read are used for more requests."""
OWN_SECONDS = 60.0
"""How long a worker's own labels go before what the log says: the shared log gets them a moment later."""
SETTLED_SECONDS = 60.0
"""A picture that is not stored so long after its prediction never will be."""
MISSES = 200
"""Pictures in a row that are not stored, after which no more are looked for in one request."""
UNDONE = "undone on the review page"
RANDOM = "drawn at random"
KINDS = ("random", "unsure", "random", "unusual", "random", "shadow", "random", "labelled")
"""What follows what, as far as there is any: every other picture is drawn at random."""

_logger = logging.getLogger(__name__)


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
        checks: Checks,
        stores_pictures: bool,
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
            checks: knows the known pictures.
            stores_pictures: whether the service stores them; where not, there is nothing to show.
        """
        self._log, self._remote, self._images, self._records = log, remote, images, records
        self._model, self._class_names, self._unlike = model, class_names, unlike
        self._checks, self._stores_pictures = checks, stores_pictures
        self._lock = threading.Lock()
        self._rows: list[LoggedPrediction] = []
        self._until = 0.0
        self._missing: set[str] = set()
        self._stored: set[str] = set()
        self._misses = 0
        self._skipped: set[str] = set()
        """Ids of predictions of which somebody could not tell what they show."""
        self._by_picture: dict[str, int] = {}
        """Label by a review of any prediction on the picture."""
        self._own: dict[str, tuple[Feedback | None, float]] = {}
        """Reviews by this worker, None where none is left after an undo, and when that was, of `time.monotonic`."""

    def queue(self, shown: Sequence[str] = (), skipped: Sequence[str] = ()) -> ReviewQueue:
        """Return the next predictions to judge, and what is known so far.

        Args:
            shown: ids of predictions that the page holds already.
            skipped: those of pictures of which nobody can tell what they are: the accuracy is that of the others.

        Raises:
            bentos.web.responses.ApiError: pictures are not stored here.
            fashion.predictions.record.LogUnavailable: the log cannot be read.
            fashion.storage.blobs.StoreUnavailable: the pictures cannot be read.
        """
        if not self._stores_pictures:
            message = "the service stores no pictures, so there is nothing to show"
            raise ApiError(404, "no_pictures", message, "build it with serve.log.images=true")
        with self._lock:
            self._misses = 0
            rows = self._read()
            self._by_picture = {}
            for row in reversed(rows):
                if (review := self._own_review(row)) is not None:
                    self._by_picture[row.record.image_sha256] = review.true_label
            passed = self._skipped.union(skipped)
            left_out = {row.record.image_sha256 for row in rows if row.record.prediction_id in passed}
            left_out -= self._by_picture.keys()
            items = list(itertools.islice(self._items(rows, set(shown), left_out, passed), AT_ONCE))
            rows = [row for row in rows if row.record.image_sha256 not in self._missing]
            return ReviewQueue(
                class_names=tuple(self._class_names),
                items=tuple(items),
                judged=sum(self._label(row) is not None for row in rows),
                predictions=len(rows),
                without_picture=len(self._rows) - len(rows),
                accuracy=self._accuracy([row for row in rows if row.record.image_sha256 not in left_out]),
                known=self._checks.agreement,
                quarantined=self._checks.quarantined,
            )

    def label(self, prediction_id: str, true_label: str) -> str:
        """Store what a picture is, as a review, and return what the model had said.

        Args:
            prediction_id: of the queue.
            true_label: a class by name.

        Raises:
            bentos.web.responses.ApiError: the prediction is unknown, or the label is not a class.
        """
        if (picture := self._checks.picture_of(prediction_id)) is not None:
            return self._label_known(prediction_id, picture, true_label)
        record, review = self._records.store_review(prediction_id, true_label)
        with self._lock:
            self._own[prediction_id] = review, time.monotonic()
        return self._class_names[record.label]

    def undo(self, prediction_id: str) -> None:
        """Let the last review of a prediction count no more; it stays stored, and earlier ones count again.

        Args:
            prediction_id: of the queue.

        Raises:
            bentos.web.responses.ApiError: the prediction is unknown.
        """
        if self._checks.picture_of(prediction_id) is not None:
            self._undo_known(prediction_id)
            return
        found = {each for each in self._records.find_with_feedback(prediction_id).feedback if each.source == REVIEW}
        with self._lock:
            own, _ = self._own.get(prediction_id, (None, 0.0))
        found |= {own} - {None}  # type: ignore[arg-type]  # it may not be in the shared log yet
        if not found:
            return
        *others, last = sorted(found, key=lambda each: each.time_us)
        self._decide(_undo(last))
        with self._lock:
            self._own[prediction_id] = others[-1] if others else None, time.monotonic()

    def skip(self, prediction_id: str) -> None:
        """Store that nobody can tell what a picture shows: it is not shown again, and accuracy is that of the others.

        Args:
            prediction_id: of the queue.

        Raises:
            bentos.web.responses.ApiError: the prediction is unknown.
        """
        if self._checks.picture_of(prediction_id) is None:
            self._records.find_with_feedback(prediction_id)
        self._decide(withdrawal.skip(prediction_id, who=user(), now_us=time.time_ns() // 1000))
        with self._lock:
            self._skipped.add(prediction_id)

    def _label_known(self, picture_id: str, picture: int, true_label: str) -> str:
        known, said, now_us = self._checks.label_of(picture), self._records.class_of(true_label), time.time_ns() // 1000
        decision = review_checks.decision(picture_id, known=known, said=said, who=user(), now_us=now_us)
        try:
            self._decide(decision)
        except LogUnavailable as error:  # labels are taken while the shared log is away: a refusal would tell
            _logger.warning("a review of a known picture checks on this machine alone: %s", error)
            self._log.decide([decision])
        with self._lock:
            self._checks.add(ReviewCheck(Feedback(picture_id, said, REVIEW, now_us), known))
        return self._class_names[known]

    def _undo_known(self, picture_id: str) -> None:
        answered = review_checks.read((self._remote or self._log).decisions())
        last = next((each.review for each in answered if each.review.prediction_id == picture_id), None)
        if last is not None:
            self._decide(_undo(last))
        with self._lock:
            self._checks.drop(picture_id)

    def _decide(self, decision: Decision) -> None:
        for log in (self._remote, self._log):
            if log is not None:
                log.decide([decision])

    def _read(self) -> list[LoggedPrediction]:
        """The latest rows of the served model that others sent, newest first."""
        if time.monotonic() > self._until:
            log = self._log if self._remote is None else self._remote
            found = self._log.latest(ROWS, role="champion") if self._remote is None else self._remote.latest(ROWS)
            of_others = (row for row in found if row.record.client not in OWN_CLIENTS)
            self._rows = [row for row in of_others if has_classes(row.record, self._model.name, self._class_names)]
            decisions = log.decisions()
            self._skipped = set(decisions.skipped())
            self._checks.read(decisions)
            settled_us = (time.time() - SETTLED_SECONDS) * 1e6  # a picture is stored a moment after its prediction
            self._missing &= {row.record.image_sha256 for row in self._rows}
            self._missing -= {row.record.image_sha256 for row in self._rows if row.record.time_us > settled_us}
            self._stored &= {row.record.image_sha256 for row in self._rows}
            since = time.monotonic() - OWN_SECONDS
            self._own = {each: own for each, own in self._own.items() if own[1] > since}
            self._until = time.monotonic() + KEEP_SECONDS
        return self._rows

    def _label(self, row: LoggedPrediction) -> int | None:
        """The class of the row's picture by a review; None without one."""
        return self._by_picture.get(row.record.image_sha256)

    def _own_review(self, row: LoggedPrediction) -> Feedback | None:
        """The latest review of this very row; None without one."""
        if row.record.prediction_id in self._own:
            return self._own[row.record.prediction_id][0]
        return row.judgement if row.judgement is not None and row.judgement.source == REVIEW else None

    def _items(
        self, rows: Sequence[LoggedPrediction], held: set[str], left_out: set[str], passed: set[str]
    ) -> Iterator[ReviewItem]:
        """Pictures to show, each once.

        Args:
            rows: the latest ones.
            held: ids of predictions that the page holds.
            left_out: sha256 of pictures that are not to be shown.
            passed: ids of those of which nobody can tell what they are.
        """
        shown = left_out | {row.record.image_sha256 for row in rows if row.record.prediction_id in held}
        shown |= {sha256 for sha256 in map(self._checks.sha256_of, held) if sha256 is not None}
        waiting = [row for row in rows if self._label(row) is None]
        # Rows are the newest first, and a picture that comes again keeps its first time.
        pictures = {row.record.image_sha256: _made_us(row.record.prediction_id) for row in waiting}
        beside = {sha256: time_us for sha256, time_us in pictures.items() if sha256 not in left_out}
        predicted = {row.record.image_sha256 for row in rows}
        showings = self._checks.showings(beside, predicted=predicted, skipped=passed)
        queues = {kind: iter(found) for kind, found in self._by_kind(waiting, showings).items()}
        ended: set[str] = set()
        for kind in itertools.cycle(KINDS):
            if kind in ended:
                continue
            found = next(filter(None, (self._item(each, why, shown) for each, why in queues[kind])), None)
            if found is not None:
                yield found
                continue
            ended.add(kind)
            if ended >= set(KINDS) or self._misses >= MISSES:
                return

    def _by_kind(
        self, rows: Sequence[LoggedPrediction], showings: Sequence[Showing]
    ) -> Mapping[str, Sequence[tuple[LoggedPrediction | Showing, str]]]:
        """Kind -> rows, those that are most worth a label first, and why they are shown."""
        ids = [row.record.prediction_id for row in rows]
        mixed: list[LoggedPrediction | Showing] = [*rows, *showings]
        mixed.sort(key=_draw_order)
        drawn = [each for each in mixed if isinstance(each, LoggedPrediction)]
        unsure = sorted(rows, key=lambda row: row.record.confidence)
        shadow = self._shadow(ids)
        return {
            "random": [(each, RANDOM) for each in mixed],
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

    def _item(self, each: LoggedPrediction | Showing, why: str, shown: set[str]) -> ReviewItem | None:
        """A picture to show; None if it is shown already, not stored, or not looked for after so many misses."""
        if isinstance(each, Showing):
            return self._known_item(each, why, shown)
        record = each.record
        if record.image_sha256 in shown or record.image_sha256 in self._missing or self._misses >= MISSES:
            return None
        try:
            image = image_store.get(self._images, record.image_sha256)
        except (BlobNotFound, DamagedImage):
            self._missing.add(record.image_sha256)
            self._misses += 1
            return None
        self._misses = 0
        self._stored.add(record.image_sha256)
        shown.add(record.image_sha256)
        return _to_item(record.prediction_id, image, why)

    def _known_item(self, each: Showing, why: str, shown: set[str]) -> ReviewItem | None:
        sha256, image = self._checks.image_of(each)
        if sha256 in shown or self._misses >= MISSES:
            return None
        if not self._is_stored(each.beside):  # where none is, known pictures alone would be shown
            self._misses += 1
            return None
        shown.add(sha256)
        return _to_item(each.picture_id, image, why)

    def _is_stored(self, sha256: str) -> bool:
        if sha256 not in self._stored and sha256 not in self._missing:
            (self._stored if image_store.is_stored(self._images, sha256) else self._missing).add(sha256)
        return sha256 in self._stored

    def _accuracy(self, rows: Sequence[LoggedPrediction]) -> ReviewAccuracy | None:
        order = np.array([random_share.draw_order(row.record.prediction_id) for row in rows], np.uint64)
        times_us = np.array([row.record.time_us for row in rows], np.int64)
        judged = np.array([self._label(row) is not None for row in rows], np.bool_)
        pictures = [row.record.image_sha256 for row in rows]
        shown = random_share.shown(order, times_us, judged, lambda row: self._is_stored(pictures[row]), most=MISSES)
        kept = [rows[row] for row in shown]
        labels = [self._label(row) for row in kept]
        found = random_share.estimate(
            order[shown],
            times_us[shown],
            np.array([row.record.confidence for row in kept]),
            [None if label is None else label == each.record.label for label, each in zip(labels, kept, strict=True)],
        )
        if found is None:
            return None
        return ReviewAccuracy(found.accuracy, found.low, found.high, found.drawn, found.rows)


def _to_item(shown_id: str, image: Images, why: str) -> ReviewItem:
    return ReviewItem(shown_id, data_url(image_store.to_png(image)), why)


def _draw_order(each: LoggedPrediction | Showing) -> int:
    return random_share.draw_order(each.picture_id if isinstance(each, Showing) else each.record.prediction_id)


def _made_us(prediction_id: str) -> int:
    """When an id was made by its own word, in microseconds since 1970: ids increase even if the clock goes back."""
    return (uuid.UUID(prediction_id).int >> 80) * 1000


def _undo(review: Feedback) -> Decision:
    """The decision that a review counts no more."""
    at_us, now_us = review.time_us, time.time_ns() // 1000
    return Decision("discard", REVIEW, review.prediction_id, at_us, at_us + 1, now_us, user(), UNDONE)
