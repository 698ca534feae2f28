"""Ships the prediction log's outbox to Firestore and reads windows back. Knows nothing of models or requests.

A prediction is a document, created once under its id, so sending it again changes nothing. Feedback is an element
of its document's `feedback` array. Firestore is asked only when something is shipped or read; without an account,
`FIRESTORE_EMULATOR_HOST` names an emulator.

What real Firestore needs beyond its defaults: a composite index on (model_version, time) where windows of one
version are read; an exemption from indexing for `probabilities` and `embedding`; a TTL policy on `expire_at` where
documents are to expire.
"""

import contextlib
import enum
import importlib.util
import logging
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fashion.images.statistics import STATISTICS
from fashion.predictions.record import (
    Feedback,
    LoggedPrediction,
    LogUnavailable,
    Outgoing,
    PredictionRecord,
    UnknownPrediction,
    is_prediction_id,
    pack,
    unpack,
)

BATCH_ROWS = 200
BATCH_BYTES = 3 * 2**20
"""Roughly; a request may have 10 MiB."""
DOCUMENT_BYTES = 2**20
"""The largest document that Firestore takes."""
READ_ATTEMPTS = 3

_OK, _ALREADY_EXISTS, _NOT_FOUND = 0, 6, 5
_LASTING = {3, 9, 11, 12, 15}
"""gRPC: invalid argument, failed precondition, out of range, unimplemented, data loss. Others may pass."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_10000 = 253_402_300_800_000_000
_logger = logging.getLogger(__name__)


class FirestoreUnavailable(LogUnavailable):
    """Firestore cannot be reached or refuses. The message is one sentence with its address."""


class Fate(enum.Enum):
    """What became of a row that was sent."""

    SHIPPED = "shipped"
    """It is there, perhaps from before."""
    ORPHAN = "orphan"
    """Feedback whose prediction is not there, yet."""
    AGAIN = "again"
    """A passing trouble."""
    REFUSED = "refused"
    """It will never be taken."""


@dataclass(frozen=True)
class Answer:
    """A row and what became of it."""

    row: Outgoing
    fate: Fate
    reason: str = ""


@dataclass(frozen=True)
class _Write:
    """One document's write: a prediction, or all feedback on one."""

    name: str
    rows: tuple[Outgoing, ...]


class FirestoreLog:
    """The predictions of all machines, in one collection. Safe to call from threads."""

    def __init__(
        self,
        project: str | None = None,
        *,
        database: str = "(default)",
        collection: str = "predictions",
        timeout_s: float = 10.0,
        expire_days: float | None = None,
    ) -> None:
        """Touches nothing yet.

        Args:
            project: the Google Cloud project; by default the environment's.
            timeout_s: how long one request may take.
            expire_days: give documents an `expire_at`, that long after the prediction.

        Raises:
            FirestoreUnavailable: the library is not installed.
        """
        if not _installed():
            raise FirestoreUnavailable(
                "shipping predictions to Firestore needs the package google-cloud-firestore: "
                "install the extra `fashion[gcp]`"
            )
        self.project, self.database, self.collection = project, database, collection
        self.timeout_s, self.expire_days = timeout_s, expire_days
        self.address = f"firestore://{project or ''}/{database}/{collection}"
        self._lock = threading.Lock()
        self._client: Any = None

    def close(self) -> None:
        """Drop the connection, and with it what is under way. The next request makes a new one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client._firestore_api.transport.close()  # the client's own `close` leaves the channel open

    def send(self, rows: Sequence[Outgoing], *, timeout_s: float | None = None) -> list[Answer]:
        """Write rows, no two of which may need the same document unless all of these are feedback.

        Raises:
            FirestoreUnavailable: the request as a whole failed; some rows may have been written.
        """
        deadline = time.monotonic() + min(timeout_s or self.timeout_s, self.timeout_s)
        with self._one_error():
            return list(self._send(_writes(rows), deadline))

    def read_window(
        self, since_us: int, until_us: int, *, model_version: str | None = None, page_rows: int = 500
    ) -> Iterator[LoggedPrediction]:
        """Predictions of since <= time < until, oldest first; equal times by id. Holds one page in memory.

        Raises:
            FirestoreUnavailable: a page could not be read, tried a few times.
            ValueError: a document is not a prediction.
        """
        last: Any = None
        while True:
            page = self._page(since_us, until_us, model_version, last, page_rows)
            yield from map(_logged, page)
            if len(page) < page_rows:
                return
            last = page[-1]

    def latest(self, rows: int, *, page_rows: int = 500) -> Iterator[LoggedPrediction]:
        """At most that many predictions that were answered, newest first. Holds one page in memory.

        Raises:
            FirestoreUnavailable: a page could not be read, tried a few times.
            ValueError: a document is not a prediction.
        """
        last: Any = None
        while rows > 0:
            page = self._page(0, _YEAR_10000, None, last, page_rows, newest_first=True)
            answered = [row for row in map(_logged, page) if row.record.role == "champion"][:rows]
            yield from answered
            rows -= len(answered)
            if len(page) < page_rows:
                return
            last = page[-1]

    def get(self, prediction_id: str) -> LoggedPrediction:
        """One prediction, of whichever machine.

        Raises:
            UnknownPrediction: it is not there (yet).
            FirestoreUnavailable: Firestore cannot be asked.
        """
        if not is_prediction_id(prediction_id):
            raise UnknownPrediction(f"no prediction {prediction_id[:40]!r} at {self.address}")
        with self._one_error():
            document = self._predictions().document(prediction_id).get(retry=None, timeout=self.timeout_s)
        if not document.exists:
            raise UnknownPrediction(f"no prediction {prediction_id} at {self.address}")
        return _logged(document)

    def _send(self, writes: list[_Write], deadline: float) -> Iterator[Answer]:
        from google.api_core.exceptions import InvalidArgument, ResourceExhausted
        from google.cloud.firestore_v1.bulk_batch import BulkWriteBatch

        if not writes:
            return
        # A batch, and not BulkWriter: that one loses writes while the server is down, and tells nobody.
        batch, sent = BulkWriteBatch(self._connected()), list[_Write]()
        for write in writes:
            try:
                self._add(batch, write)
                sent.append(write)
            except (TypeError, ValueError, OverflowError) as error:
                yield from _answers(write, Fate.REFUSED, f"cannot be a document: {error}")
        if not sent:
            return
        try:
            response = batch.commit(retry=None, timeout=max(0.1, deadline - time.monotonic()))
        except (InvalidArgument, ResourceExhausted) as error:
            size = sum(request_bytes(row) for write in sent for row in write.rows)
            if isinstance(error, ResourceExhausted) and size < DOCUMENT_BYTES:
                raise  # a quota, and not the request's size
            if len(sent) == 1:
                yield from _answers(sent[0], Fate.REFUSED, _sentence(error))
                return
            # One document that is too large fails all of them: look for it.
            yield from self._send(sent[: len(sent) // 2], deadline)
            yield from self._send(sent[len(sent) // 2 :], deadline)
            return
        for write, status in zip(sent, response.status, strict=True):
            fate = _fate(write, status.code)
            yield from _answers(write, fate, f"{status.message} (status {status.code})")

    def _add(self, batch: Any, write: _Write) -> None:
        from google.cloud.firestore import ArrayUnion

        reference, item = self._predictions().document(write.name), write.rows[0].item
        if isinstance(item, PredictionRecord):
            batch.create(reference, _document(item, self.expire_days))
        else:
            # A union adds what is not there yet, so feedback that is sent twice is there once.
            said = [_feedback(row.item) for row in write.rows if isinstance(row.item, Feedback)]
            batch.update(reference, {"feedback": ArrayUnion(said)})

    def _page(
        self,
        since_us: int,
        until_us: int,
        model_version: str | None,
        last: Any,
        rows: int,
        *,
        newest_first: bool = False,
    ) -> list[Any]:
        for attempt in range(READ_ATTEMPTS):
            try:
                with self._one_error():
                    query = _query(self._predictions(), since_us, until_us, model_version, newest_first).limit(rows)
                    query = query.start_after(last) if last is not None else query
                    return list(query.stream(retry=None, timeout=self.timeout_s))
            except FirestoreUnavailable:
                if attempt == READ_ATTEMPTS - 1:
                    raise
                time.sleep(0.2 * 2**attempt)
        raise AssertionError("unreachable")

    def _predictions(self) -> Any:
        return self._connected().collection(self.collection)

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                from google.cloud import firestore

                self._client = firestore.Client(project=self.project, database=self.database)
                _ = self._client._firestore_api  # made by the first who asks, and by two who ask at once twice
            return self._client

    @contextlib.contextmanager
    def _one_error(self) -> Iterator[None]:
        """Make one error of those of Google's libraries, and drop a client that has met one.

        A client that has seen its server go does not always find it again.
        """
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

        try:
            yield
        except DefaultCredentialsError as error:
            raise FirestoreUnavailable(
                f"{self.address} cannot be used without Google credentials: "
                "run `gcloud auth application-default login`, or give the machine a service account"
            ) from error
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            self.close()
            raise FirestoreUnavailable(f"{self.address} cannot be used: {_sentence(error)}") from error
        except ValueError as error:
            if "Cannot invoke RPC" not in str(error):  # gRPC's way to say that another thread dropped the client
                raise
            self.close()
            raise FirestoreUnavailable(f"{self.address} cannot be used: the connection was closed") from error


def _installed() -> bool:
    try:
        return importlib.util.find_spec("google.cloud.firestore") is not None
    except ModuleNotFoundError:
        return False


def _query(predictions: Any, since_us: int, until_us: int, model_version: str | None, newest_first: bool) -> Any:
    from google.cloud.firestore import FieldFilter

    query = predictions.where(filter=FieldFilter("time", ">=", _moment(max(since_us, 0))))
    if until_us < _YEAR_10000:  # a later moment is none to Firestore, nor to Python
        query = query.where(filter=FieldFilter("time", "<", _moment(until_us)))
    if model_version is not None:
        query = query.where(filter=FieldFilter("model_version", "==", model_version))
    # The name too: a page that ends between equal times would lose the rest of them.
    direction = "DESCENDING" if newest_first else "ASCENDING"
    return query.order_by("time", direction=direction).order_by("__name__", direction=direction)


def _writes(rows: Sequence[Outgoing]) -> list[_Write]:
    """One write a document: Firestore refuses two to the same one in a request."""
    by_name: dict[str, list[Outgoing]] = {}
    for row in rows:
        by_name.setdefault(document_name(row), []).append(row)
    return [_Write(name, tuple(group)) for name, group in by_name.items()]


def document_name(row: Outgoing) -> str:
    item = row.item
    shadow = isinstance(item, PredictionRecord) and item.role == "shadow"
    return f"{item.prediction_id}.shadow" if shadow else item.prediction_id


def request_bytes(row: Outgoing) -> int:
    # A probability is 11 bytes of a request, the embedding's numbers are 2; the rest is less than 1,000.
    item = row.item
    return 1000 + (11 * len(item.probabilities) + 2 * len(item.embedding) if isinstance(item, PredictionRecord) else 0)


def _fate(write: _Write, code: int) -> Fate:
    is_feedback = isinstance(write.rows[0].item, Feedback)
    if code == _OK or (code == _ALREADY_EXISTS and not is_feedback):
        return Fate.SHIPPED
    if code == _NOT_FOUND and is_feedback:
        return Fate.ORPHAN
    return Fate.REFUSED if code in _LASTING else Fate.AGAIN


def _answers(write: _Write, fate: Fate, reason: str) -> Iterator[Answer]:
    for row in write.rows:
        yield Answer(row, fate, reason)


def _document(record: PredictionRecord, expire_days: float | None) -> dict[str, Any]:
    document = {
        "time": _moment(record.time_us),
        "model_version": record.model_version,
        "role": record.role,
        "label": int(record.label),
        "confidence": float(record.confidence),
        "probabilities": [float(value) for value in record.probabilities],
        "statistics": dict(zip(STATISTICS, map(float, record.statistics), strict=True)),
        "embedding": pack("e", record.embedding),
        "image_sha256": record.image_sha256,
        "latency_ms": float(record.latency_ms),
        "client": record.client,
    }
    if expire_days is not None:
        document["expire_at"] = _moment(record.time_us) + timedelta(days=expire_days)
    return document


def _feedback(item: Feedback) -> dict[str, Any]:
    return {"true_label": int(item.true_label), "source": item.source, "time": _moment(item.time_us)}


def _logged(document: Any) -> LoggedPrediction:
    prediction_id = document.id.partition(".")[0]
    content = document.to_dict()
    try:
        record = PredictionRecord(
            prediction_id=prediction_id,
            time_us=_microseconds(content["time"]),
            model_version=content["model_version"],
            role=content["role"],
            label=content["label"],
            confidence=content["confidence"],
            probabilities=tuple(content["probabilities"]),
            statistics=tuple(content["statistics"][name] for name in STATISTICS),
            embedding=unpack("e", content["embedding"]),
            image_sha256=content["image_sha256"],
            latency_ms=content["latency_ms"],
            client=content["client"],
        )
        said = [
            Feedback(prediction_id, each["true_label"], each["source"], _microseconds(each["time"]))
            for each in content.get("feedback", ())
        ]
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ValueError(f"document {document.id} is not a prediction: {error!r}") from error
    return LoggedPrediction(record, tuple(sorted(said, key=lambda each: each.time_us)))


def _moment(time_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=time_us)


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
