"""The Firestore client: writes rows of the outbox, reads predictions back. Knows no models and no schedule.

A prediction is created once under its id, so sending it again changes nothing. Firestore is connected to only when
something is sent or read; without an account, `FIRESTORE_EMULATOR_HOST` names an emulator.

What real Firestore needs beyond its defaults: a composite index on (model_version, time) where windows of one
version are read; an exemption from indexing for `probabilities` and `embedding`; a TTL policy on `expire_at` where
documents are to expire.
"""

import contextlib
import enum
import importlib.util
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fashion.predictions.firestore_documents import (
    document_name,
    from_document,
    request_bytes,
    to_datetime,
    to_document,
    to_element,
)
from fashion.predictions.outbox import Outgoing
from fashion.predictions.record import (
    FOREVER_US,
    Feedback,
    LoggedPrediction,
    LogUnavailable,
    PredictionRecord,
    UnknownPrediction,
    is_prediction_id,
)

BATCH_ROWS = 200
"""Rows of one request, at most."""
BATCH_BYTES = 3 * 2**20
"""Estimated size of one request, at most; Firestore takes 10 MiB."""
DOCUMENT_BYTES = 2**20
"""The largest document that Firestore takes."""
READ_ATTEMPTS = 3
"""How often a page is tried before reading fails."""

_OK, _ALREADY_EXISTS, _NOT_FOUND = 0, 6, 5
_PERMANENT = {3, 9, 11, 12, 15}
"""gRPC: invalid argument, failed precondition, out of range, unimplemented, data loss. Others may be temporary."""


class FirestoreUnavailable(LogUnavailable):
    """Firestore cannot be reached or denies access. The message is one sentence with its address."""


class Outcome(enum.Enum):
    """How sending a row ended."""

    SHIPPED = "shipped"
    """The row is stored, perhaps by an earlier attempt."""
    ORPHAN = "orphan"
    """The row is feedback, and its prediction is not stored yet."""
    RETRY = "retry"
    """A temporary failure."""
    REFUSED = "refused"
    """A permanent failure."""


@dataclass(frozen=True)
class Delivery:
    """A row that was sent, and the outcome."""

    row: Outgoing
    outcome: Outcome
    reason: str = ""
    """What Firestore said, where the row is not shipped."""


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
        """Set up a client. Connects to nothing yet.

        Args:
            project: the Google Cloud project; by default the environment's.
            database: the project's database.
            collection: the database's collection.
            timeout_s: how long one request may take.
            expire_days: give documents an `expire_at`, this many days after the prediction.

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
        """Close the connection, which fails requests under way. The next request opens a new one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client._firestore_api.transport.close()  # the client's own `close` leaves the channel open

    def send(self, rows: Sequence[Outgoing], *, timeout_s: float | None = None) -> list[Delivery]:
        """Write rows in one request.

        Args:
            rows: rows of the outbox. Where several belong to one document, all of these must be feedback.
            timeout_s: how long the request may take, if less than the client's `timeout_s`.

        Raises:
            FirestoreUnavailable: the request as a whole failed; some rows may have been written.
        """
        deadline = time.monotonic() + min(timeout_s or self.timeout_s, self.timeout_s)
        with self._translate_errors():
            return list(self._send(_writes(rows), deadline))

    def read_window(
        self, since_us: int, until_us: int, *, model_version: str | None = None, page_rows: int = 500
    ) -> Iterator[LoggedPrediction]:
        """Yield predictions of since <= time < until, oldest first, equal times by id.

        Args:
            since_us: microseconds since 1970, UTC.
            until_us: microseconds since 1970, UTC.
            model_version: only rows of this version.
            page_rows: rows held in memory at once.

        Raises:
            FirestoreUnavailable: a page could not be read in READ_ATTEMPTS attempts.
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
        """Yield at most `rows` predictions of the role champion, newest first. Holds `page_rows` in memory.

        Raises:
            FirestoreUnavailable: a page could not be read in READ_ATTEMPTS attempts.
            ValueError: a document is not a prediction.
        """
        last: Any = None
        while rows > 0:
            page = self._page(0, FOREVER_US, None, last, page_rows, newest_first=True)
            champions = [row for row in map(_logged, page) if row.record.role == "champion"][:rows]
            yield from champions
            rows -= len(champions)
            if len(page) < page_rows:
                return
            last = page[-1]

    def get(self, prediction_id: str) -> LoggedPrediction:
        """Return one champion's prediction, of whichever machine.

        Raises:
            UnknownPrediction: it is not there (yet).
            FirestoreUnavailable: Firestore cannot be read.
            ValueError: the document is not a prediction.
        """
        if not is_prediction_id(prediction_id):
            raise UnknownPrediction(f"no prediction {prediction_id[:40]!r} at {self.address}")
        with self._translate_errors():
            document = self._predictions().document(prediction_id).get(retry=None, timeout=self.timeout_s)
        if not document.exists:
            raise UnknownPrediction(f"no prediction {prediction_id} at {self.address}")
        return _logged(document)

    def _send(self, writes: list[_Write], deadline: float) -> Iterator[Delivery]:
        from google.api_core.exceptions import InvalidArgument, ResourceExhausted
        from google.cloud.firestore_v1.bulk_batch import BulkWriteBatch

        if not writes:
            return
        # A batch, not BulkWriter: that one silently loses writes while the server is down.
        batch, sent = BulkWriteBatch(self._connected()), list[_Write]()
        for write in writes:
            try:
                self._add(batch, write)
                sent.append(write)
            except (TypeError, ValueError, OverflowError) as error:
                yield from _deliveries(write, Outcome.REFUSED, f"cannot be a document: {error}")
        if not sent:
            return
        try:
            response = batch.commit(retry=None, timeout=max(0.1, deadline - time.monotonic()))
        except (InvalidArgument, ResourceExhausted) as error:
            size = sum(request_bytes(row.item) for write in sent for row in write.rows)
            if isinstance(error, ResourceExhausted) and size < DOCUMENT_BYTES:
                raise  # a quota, not the request's size
            if len(sent) == 1:
                yield from _deliveries(sent[0], Outcome.REFUSED, _sentence(error))
                return
            # One document that is too large fails the whole request: halve it to find which.
            yield from self._send(sent[: len(sent) // 2], deadline)
            yield from self._send(sent[len(sent) // 2 :], deadline)
            return
        for write, status in zip(sent, response.status, strict=True):
            outcome = _outcome(write, status.code)
            yield from _deliveries(write, outcome, f"{status.message} (status {status.code})")

    def _add(self, batch: Any, write: _Write) -> None:
        from google.cloud.firestore import ArrayUnion

        reference, item = self._predictions().document(write.name), write.rows[0].item
        if isinstance(item, PredictionRecord):
            batch.create(reference, to_document(item, expire_days=self.expire_days))
        else:
            # A union adds only what is missing, so feedback that is sent twice is stored once.
            elements = [to_element(row.item) for row in write.rows if isinstance(row.item, Feedback)]
            batch.update(reference, {"feedback": ArrayUnion(elements)})

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
                with self._translate_errors():
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
                _ = self._client._firestore_api  # made on first use; two threads at once would make two
            return self._client

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise FirestoreUnavailable for errors of Google's libraries, and drop the client.

        A client that has lost its server does not always find it again.
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
            if "Cannot invoke RPC" not in str(error):  # what gRPC raises when another thread has closed the client
                raise
            self.close()
            raise FirestoreUnavailable(f"{self.address} cannot be used: the connection was closed") from error


def open_firestore(address: str, *, expire_days: float | None = None) -> FirestoreLog:
    """Return the client of `project` or `project/database`, as FASHION_FIRESTORE names it. Connects to nothing yet.

    Raises:
        FirestoreUnavailable: the library is not installed.
    """
    project, _, database = address.partition("/")
    return FirestoreLog(project, database=database or "(default)", expire_days=expire_days)


def _installed() -> bool:
    try:
        return importlib.util.find_spec("google.cloud.firestore") is not None
    except ModuleNotFoundError:
        return False


def _query(predictions: Any, since_us: int, until_us: int, model_version: str | None, newest_first: bool) -> Any:
    from google.cloud.firestore import FieldFilter

    query = predictions.where(filter=FieldFilter("time", ">=", to_datetime(max(since_us, 0))))
    if until_us < FOREVER_US:  # neither Firestore nor Python knows later dates
        query = query.where(filter=FieldFilter("time", "<", to_datetime(until_us)))
    if model_version is not None:
        query = query.where(filter=FieldFilter("model_version", "==", model_version))
    # By name too: a page that ends between equal times would lose the rest of them.
    direction = "DESCENDING" if newest_first else "ASCENDING"
    return query.order_by("time", direction=direction).order_by("__name__", direction=direction)


def _writes(rows: Sequence[Outgoing]) -> list[_Write]:
    """Group rows by document: Firestore rejects two writes to one document in a request."""
    by_name: dict[str, list[Outgoing]] = {}
    for row in rows:
        by_name.setdefault(document_name(row.item), []).append(row)
    return [_Write(name, tuple(group)) for name, group in by_name.items()]


def _outcome(write: _Write, code: int) -> Outcome:
    is_feedback = isinstance(write.rows[0].item, Feedback)
    if code == _OK or (code == _ALREADY_EXISTS and not is_feedback):
        return Outcome.SHIPPED
    if code == _NOT_FOUND and is_feedback:
        return Outcome.ORPHAN
    return Outcome.REFUSED if code in _PERMANENT else Outcome.RETRY


def _deliveries(write: _Write, outcome: Outcome, reason: str) -> Iterator[Delivery]:
    for row in write.rows:
        yield Delivery(row, outcome, reason)


def _logged(document: Any) -> LoggedPrediction:
    return from_document(document.id, document.to_dict())


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
