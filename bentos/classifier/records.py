"""Logged predictions and the feedback on them: read, and added to. Knows the log and the shared one, not HTTP."""

import asyncio
import contextlib
import datetime
import io
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from bentos.classifier.schemas import (
    FeedbackAnswer,
    FeedbackRead,
    FeedbackRequest,
    FeedbackTableAnswer,
    LineError,
    PredictionRead,
)
from bentos.classifier.shipping import Shipping
from bentos.classifier.unlike import Unlike
from bentos.web.responses import ApiError
from fashion.images.statistics import STATISTICS
from fashion.predictions.feedback_csv import FeedbackRow, InvalidTable, RowError, parse_feedback
from fashion.predictions.labels import to_class
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import (
    REVIEW,
    Feedback,
    LoggedPrediction,
    LogUnavailable,
    ModelId,
    PredictionRecord,
    UnknownPrediction,
)

CSV_ROWS = 10_000
"""Most rows of a table of feedback."""
SHOWN_ERRORS = 100
"""Most errors of a table that are answered."""
FEEDBACK_SECONDS = 2.0
"""How long an answer waits for feedback that other machines have given on a prediction of this one."""
DIGITS = 6
"""Decimals of probabilities and statistics in answers."""

_logger = logging.getLogger(__name__)


class Records:
    """The predictions of this machine's log, and of the shared one where they are not in it."""

    def __init__(
        self,
        log: PredictionLog,
        shipping: Shipping,
        model: ModelId,
        class_names: Sequence[str],
        unlike: Mapping[ModelId, Unlike],
    ) -> None:
        """
        Args:
            log: of this machine.
            shipping: knows the shared log.
            model: what is served here.
            class_names: of the model.
            unlike: of each version that answers here.
        """
        self._log, self._shipping, self._model, self._class_names = log, shipping, model, class_names
        self._unlike = unlike

    async def read(self, prediction_id: str) -> PredictionRead:
        """Read a prediction as it was logged, with all feedback; that of other machines where their log can be read.

        Raises:
            ApiError: 404, it is unknown.
        """
        logged = await asyncio.to_thread(self.find_with_feedback, prediction_id)
        record = logged.record
        names = self._class_names if has_classes(record, self._model.name, self._class_names) else ()
        return PredictionRead(
            prediction_id=record.prediction_id,
            time=_iso(record.time_us),
            model_name=record.model_name,
            model_version=record.model_version,
            model_digest=record.model_digest,
            label=_class_name(record.label, names),
            confidence=round(record.confidence, DIGITS),
            probabilities=_by_name(record.probabilities, names),
            statistics={name: round(value, DIGITS) for name, value in zip(STATISTICS, record.statistics, strict=True)},
            typicality=self._typicality(record),
            image_sha256=record.image_sha256,
            latency_ms=round(record.latency_ms, 3),
            client=record.client,
            feedback=tuple(
                FeedbackRead(_class_name(each.true_label, names), each.source, _iso(each.time_us))
                for each in logged.feedback
            ),
        )

    async def add_feedback(self, request: FeedbackRequest) -> FeedbackAnswer:
        """Store what a prediction should have been.

        Raises:
            ApiError: 404, the prediction is unknown; 422, the label is not a class, the source is not a short name, or
                the prediction is of another model than is served here.
        """
        label = self.class_of(request.true_label)
        _check_source(request.source)
        try:
            feedback = Feedback(request.prediction_id, label, request.source, time.time_ns() // 1000)
        except ValueError as error:
            raise ApiError(422, "bad_field", str(error), "send a short name of who says so") from None
        await asyncio.to_thread(self._store, feedback)
        stored_in = await self._shipping.stored_in([request.prediction_id])
        return FeedbackAnswer(request.prediction_id, self._class_names[label], stored_in)

    def store_review(self, prediction_id: str, true_label: str) -> tuple[PredictionRecord, Feedback]:
        """Store what a picture is as a review, and return the prediction and the review.

        Args:
            prediction_id: of an answer.
            true_label: a class by name.

        Raises:
            ApiError: 404, the prediction is unknown; 422, the label is not a class, or it is of another model.
        """
        label = self.class_of(true_label)
        record = self._find(prediction_id).record
        review = Feedback(prediction_id, label, REVIEW, time.time_ns() // 1000)
        self._store(review)
        return record, review

    async def add_feedback_table(self, body: bytes, count: Callable[[int], None] | None = None) -> FeedbackTableAnswer:
        """Store the rows of a CSV table; a row that cannot be stored becomes an error with its line.

        Args:
            body: CSV in UTF-8.
            count: called with the number of rows before any is stored; raises where there are too many.

        Raises:
            ApiError: the body is not a table with the columns `prediction_id` and `true_label`; or of `count`.
        """
        rows = await asyncio.to_thread(parse_table, body)
        if count is not None:
            count(len(rows))
        accepted, refused, errors = await asyncio.to_thread(self._store_rows, rows)
        stored_in = await self._shipping.stored_in([row.prediction_id for row in rows])
        return FeedbackTableAnswer(accepted, refused, tuple(errors), stored_in)

    def by_name(self, probabilities: Sequence[float]) -> dict[str, float]:
        """Map class names of the served model to their probabilities, rounded."""
        return _by_name(probabilities, self._class_names)

    def _typicality(self, record: PredictionRecord) -> float | None:
        unlike = self._unlike.get(record.model)
        share = None if unlike is None else unlike.typicality_of(record)
        return None if share is None else round(share, DIGITS)

    def class_of(self, value: str | int) -> int:
        """The index of a class of the served model.

        Raises:
            ApiError: 422, it is none.
        """
        try:
            return to_class(value, self._class_names)
        except ValueError as error:
            raise ApiError(422, "bad_field", str(error), "send a class by name") from None

    def _find(self, prediction_id: str) -> LoggedPrediction:
        try:
            return self._log.get(prediction_id)
        except UnknownPrediction:
            if self._shipping.remote is not None:
                with contextlib.suppress(UnknownPrediction):
                    return self._shipping.remote.get(prediction_id)
        remedy = "send the prediction_id of an answer; old predictions are dropped after a while"
        raise ApiError(404, "unknown_prediction", f"there is no prediction {prediction_id[:60]!r}", remedy)

    def find_with_feedback(self, prediction_id: str) -> LoggedPrediction:
        """Read a prediction with all feedback that counts; that of other machines where their log can be read.

        Raises:
            ApiError: 404, it is unknown.
        """
        remote = self._shipping.remote
        try:
            logged = self._log.get(prediction_id)
        except UnknownPrediction:
            return self._find(prediction_id)
        if remote is not None:
            with contextlib.suppress(UnknownPrediction, LogUnavailable):
                feedback = {*logged.feedback, *remote.get(prediction_id, timeout_s=FEEDBACK_SECONDS).feedback}
                return LoggedPrediction(logged.record, tuple(sorted(feedback, key=lambda each: each.time_us)))
        return logged

    def _store(self, feedback: Feedback) -> None:
        try:
            record, elsewhere = self._log.get(feedback.prediction_id).record, False
        except UnknownPrediction:
            record, elsewhere = self._find(feedback.prediction_id).record, True  # another machine may have made it
        if not has_classes(record, self._model.name, self._class_names):
            message = f"prediction {feedback.prediction_id} is of {record.model}, which is not served here"
            remedy = "send it to the service of that model, or store it with `fashion log feedback`"
            raise ApiError(422, "other_model", message, remedy)
        self._log.append_feedback([feedback], known_elsewhere=elsewhere)

    def _store_rows(self, rows: Sequence[FeedbackRow | RowError]) -> tuple[int, int, list[LineError]]:
        """Store rows one by one, and return how many were accepted and refused, with the errors."""
        accepted = 0
        errors: list[LineError] = []
        for number, row in enumerate(rows):
            if isinstance(row, RowError):
                errors.append(LineError(row.line, row.message))
                continue
            try:
                label = self.class_of(row.true_label)
                _check_source(row.source)
                self._store(Feedback(row.prediction_id, label, row.source, time.time_ns() // 1000))
                accepted += 1
            except (ApiError, ValueError) as error:
                errors.append(LineError(row.line, str(error)))
            except LogUnavailable as error:
                _logger.error("%s", error)
                refused = len(errors) + len(rows) - number
                message = "cannot be stored now: send this line and those below it again"
                return accepted, refused, [*errors, LineError(row.line, message)][-SHOWN_ERRORS:]
        return accepted, len(errors), errors[:SHOWN_ERRORS]


def _check_source(source: str) -> None:
    """Refuse feedback that calls itself a review: models are judged by those.

    Raises:
        ApiError: 422, it does.
    """
    if source == REVIEW:
        remedy = "send another name of who says so; /review takes labels with a key of FASHION_REVIEW_KEYS"
        raise ApiError(422, "bad_field", f"source {REVIEW!r} is reserved for the review page", remedy)


def has_classes(record: PredictionRecord, model_name: str | None, class_names: Sequence[str]) -> bool:
    """Return True if a record's labels index these classes.

    Versions of one registered model have the same classes: the gate refuses others.

    Args:
        record: any of the log.
        model_name: of the registered model with these classes.
        class_names: of it.
    """
    return record.model_name == model_name and len(record.probabilities) == len(class_names)


def parse_table(body: bytes) -> list[FeedbackRow | RowError]:
    """Parse a CSV table of feedback.

    Args:
        body: CSV in UTF-8.

    Raises:
        ApiError: the body is not CSV in UTF-8, lacks a column, or has no row or more than `CSV_ROWS`.
    """
    try:
        text = io.StringIO(body.decode("utf-8-sig"), newline="")
        rows = list(itertools.islice(parse_feedback(text), CSV_ROWS + 1))
    except UnicodeDecodeError as error:
        raise ApiError(400, "bad_csv", f"the table cannot be read: {error}", "send CSV in UTF-8") from None
    except InvalidTable as error:
        remedy = "send CSV with a header of prediction_id and true_label; `source` may be a third column"
        raise ApiError(422, "bad_csv", str(error), remedy) from None
    if not rows:
        raise ApiError(422, "bad_csv", "the table has no rows", "send a header and at least one row")
    if len(rows) > CSV_ROWS:
        message, remedy = f"the table has more than {CSV_ROWS:,} rows", f"send at most {CSV_ROWS:,} rows at once"
        raise ApiError(413, "too_large", message, remedy)
    return rows


def _class_name(label: int, names: Sequence[str]) -> str:
    """Name a class; a label of another model stays a number."""
    return names[label] if label < len(names) else str(label)


def _by_name(probabilities: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    return {_class_name(label, names): round(value, DIGITS) for label, value in enumerate(probabilities)}


def _iso(time_us: int) -> str:
    moment = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return moment.replace(microsecond=time_us % 1_000_000).isoformat()
