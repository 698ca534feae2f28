"""The log that machines share in Firestore. Knows no models and no schedule.

A prediction is created once under its id, so sending it again changes nothing. Firestore is connected to only when
something is sent or read; without an account, `FIRESTORE_EMULATOR_HOST` names an emulator.

configs/deploy/firestore/ has the index that `labelled` needs, the exemptions of fields that no query reads, and the
policy that deletes documents after their `expire_at`.

Firestore's guidance is 500 writes a second to a collection with an index on a field that only grows, as `time` does:
43 million predictions a day. A field of random shards would spread them, and every window would be as many queries to
merge as there are shards. Nothing here needs that; where more is written for hours, PostgreSQL is the simpler way, and
a peak waits in the outbox.
"""

import contextlib
import dataclasses
import importlib.util
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from fashion.predictions import firestore_decisions
from fashion.predictions.canary_ending import CanaryEnding
from fashion.predictions.firestore_decisions import KnownDecisions
from fashion.predictions.firestore_documents import (
    from_document,
    to_datetime,
    to_microseconds,
)
from fashion.predictions.firestore_errors import explain
from fashion.predictions.firestore_writes import Writer, seconds_left
from fashion.predictions.outbox import Outgoing
from fashion.predictions.record import (
    FOREVER_US,
    DamagedLog,
    KnownModel,
    LoggedPrediction,
    UnknownPrediction,
    is_prediction_id,
)
from fashion.predictions.shared_log import PAGE_ROWS, Delivery, SharedLogUnavailable, retrying
from fashion.predictions.withdrawal import Decision, Decisions

DECISIONS_AT_ONCE = 400
"""Decisions in one request; Firestore takes 500 writes."""


Query = Callable[[Any], Any]
"""Takes the collection, returns a query of it in an order that no two documents share."""


class FirestoreLog:
    """A SharedLog in one collection."""

    kind = "firestore"

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
            timeout_s: how long one call may take, or one page of those that yield rows; in seconds.
            expire_days: give documents an `expire_at`, this many days after the prediction.

        Raises:
            SharedLogUnavailable: the library is not installed.
        """
        if not _installed():
            raise SharedLogUnavailable(
                "shipping predictions to Firestore needs the package google-cloud-firestore: "
                "install the extra `fashion[gcp]`"
            )
        self.project, self.database, self.collection = project, database, collection
        self.timeout_s, self.expire_days = timeout_s, expire_days
        self.address = f"firestore://{project or ''}/{database}/{collection}"
        self._lock = threading.Lock()
        self._client: Any = None
        self._known_decisions = KnownDecisions()

    def close(self) -> None:
        """Close the connection, which fails requests under way. The next request opens a new one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client._firestore_api.transport.close()  # the client's own `close` leaves the channel open

    def send(self, rows: Sequence[Outgoing], *, timeout_s: float | None = None) -> list[Delivery]:
        """Write rows in one request; see SharedLog."""
        deadline = time.monotonic() + min(timeout_s or self.timeout_s, self.timeout_s)
        with self._translate_errors():
            writer = Writer(self._connected(), self._predictions(), expire_days=self.expire_days)
            return list(writer.write(rows, deadline))

    def read_window(self, since_us: int, until_us: int, *, page_rows: int = PAGE_ROWS) -> Iterator[LoggedPrediction]:
        """Yield predictions of since <= time < until, oldest first; see SharedLog."""
        return self._logged(self._documents(_in_window(since_us, until_us), page_rows))

    def latest(
        self, rows: int, *, page_rows: int = PAGE_ROWS, timeout_s: float | None = None
    ) -> Iterator[LoggedPrediction]:
        """Yield at most `rows` predictions of the role champion, newest first; see SharedLog."""
        found = self._logged(self._documents(_newest_first, max(1, min(rows, page_rows)), timeout_s), timeout_s)
        return islice((row for row in found if row.record.role == "champion"), rows)

    def labelled(self, *, withdrawn: bool = False, page_rows: int = PAGE_ROWS) -> Iterator[LoggedPrediction]:
        """Yield predictions with feedback, newest first; see SharedLog.

        Feedback from before documents had the field `labelled` is found once `mark_labelled` has run.
        """
        found = self._logged(self._documents(_labelled, page_rows), withdrawn=withdrawn)
        return (row for row in found if row.feedback)

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Store that feedback counts no more, or again; see SharedLog. They are in a collection of their own."""
        with self._translate_errors():
            for start in range(0, len(decisions), DECISIONS_AT_ONCE):
                batch = self._connected().batch()
                for number, each in enumerate(decisions[start : start + DECISIONS_AT_ONCE], start):
                    name = firestore_decisions.name_of(time.time_ns(), number)  # in their order
                    batch.create(self._decisions().document(name), firestore_decisions.to_document(each))
                batch.commit(retry=None, timeout=self.timeout_s)

    def decisions(self, *, timeout_s: float | None = None) -> Decisions:
        """Return all decisions on feedback; see SharedLog. Those that were read before are not read again."""

        def read(since: str, seconds: float) -> dict[str, Any]:
            with self._translate_errors():
                query = self._decisions().order_by("__name__")
                query = query.start_at({"__name__": since}) if since else query
                return {document.id: document.to_dict() for document in query.stream(retry=None, timeout=seconds)}

        def read_in_time(since: str) -> dict[str, Any]:
            if timeout_s is not None:
                return read(since, timeout_s)
            return retrying(lambda seconds: read(since, seconds), self.timeout_s)

        return self._known_decisions.update(read_in_time)

    def end_canary(self, ending: CanaryEnding) -> None:
        """Store how the comparison of a canary ended; see SharedLog. It is in a collection of its own."""
        with self._translate_errors():
            self._facts().document(ending.name).set({"value": ending.as_text()}, retry=None, timeout=self.timeout_s)

    def canary_ending(self, name: str, *, timeout_s: float | None = None) -> CanaryEnding | None:
        """Return how the comparison of a canary ended; see SharedLog."""
        limit = min(timeout_s or self.timeout_s, self.timeout_s)
        with self._translate_errors():
            document = self._facts().document(name).get(retry=None, timeout=limit)
        return CanaryEnding.of_text(document.to_dict().get("value"), self.address) if document.exists else None

    def mark_labelled(self) -> tuple[int, int]:
        """Set the field `labelled` where it is missing, and return how many documents were read and changed.

        Reads every document once: for a collection that has feedback from before there was this field.
        """
        read = changed = 0
        for document in self._documents(_feedback_alone, PAGE_ROWS):
            read += 1
            content = document.to_dict()
            if content.get("feedback") and not content.get("labelled"):
                with self._translate_errors():
                    document.reference.update({"labelled": True}, retry=None, timeout=self.timeout_s)
                changed += 1
        return read, changed

    def get(self, prediction_id: str, *, timeout_s: float | None = None) -> LoggedPrediction:
        """Return one champion's prediction; see SharedLog."""
        if not is_prediction_id(prediction_id):
            raise UnknownPrediction(f"no prediction {prediction_id[:40]!r} at {self.address}")
        limit = min(timeout_s or self.timeout_s, self.timeout_s)
        deadline = time.monotonic() + limit
        with self._translate_errors():
            document = self._predictions().document(prediction_id).get(retry=None, timeout=limit)
        if not document.exists:
            raise UnknownPrediction(f"no prediction {prediction_id} at {self.address}")
        return next(self._logged([document], seconds_left(deadline)))

    def count_after(self, until_us: int, *, most: int) -> int:
        """Return how many predictions are dated `until_us` or later; see SharedLog."""
        if until_us >= FOREVER_US:
            return 0
        rows = islice(self.read_window(until_us, FOREVER_US), most)
        return sum(row.record.role == "champion" for row in rows)

    def forget(self, prediction_id: str) -> int:
        """Delete a prediction's documents; see SharedLog."""
        from google.cloud.firestore import FieldFilter

        deleted, deadline = 0, time.monotonic() + self.timeout_s
        with self._translate_errors():
            for name in (prediction_id, f"{prediction_id}.shadow"):
                document = self._predictions().document(name)
                deleted += document.get(retry=None, timeout=seconds_left(deadline)).exists
                document.delete(retry=None, timeout=seconds_left(deadline))
            about = self._decisions().where(filter=FieldFilter("prediction_id", "==", prediction_id))
            for decision in about.stream(retry=None, timeout=seconds_left(deadline)):
                decision.reference.delete(retry=None, timeout=seconds_left(deadline))
        self._known_decisions.forget(prediction_id)
        return deleted

    def name_rows(self, known: Sequence[KnownModel]) -> int:
        """Name the models of documents; see SharedLog. Reads every document once."""
        by_version, named = {each.model.version: each for each in known}, 0
        for document in self._documents(_model_alone, PAGE_ROWS):
            content = document.to_dict()
            found = by_version.get(str(content.get("model_version")))
            if found is None or content.get("model_name") is not None:
                continue
            if found.may_be(to_microseconds(content["time"]), len(content["probabilities"])):
                fields = {"model_name": found.model.name, "model_digest": found.model.digest}
                with self._translate_errors():
                    document.reference.update(fields, retry=None, timeout=self.timeout_s)
                named += 1
        return named

    def has_picture(self, image_sha256: str, *, besides: str | None = None) -> bool:
        """Return True if a prediction is on this picture; see SharedLog."""
        from google.cloud.firestore import FieldFilter

        with self._translate_errors():
            found = self._predictions().where(filter=FieldFilter("image_sha256", "==", image_sha256)).limit(3)
            names = [document.id for document in found.stream(retry=None, timeout=self.timeout_s)]
        return any(name.partition(".")[0] != besides for name in names)  # two may be of `besides`: a shadow's too

    def _documents(self, query: Query, page_rows: int, timeout_s: float | None = None) -> Iterator[Any]:
        def read(seconds: float) -> list[Any]:
            with self._translate_errors():
                found = query(self._predictions()).limit(page_rows)
                found = found.start_after(last) if last is not None else found
                return list(found.stream(retry=None, timeout=seconds))

        last: Any = None
        while True:
            page = read(timeout_s) if timeout_s is not None else retrying(read, self.timeout_s)
            yield from page
            if len(page) < page_rows:
                return
            last = page[-1]

    def _logged(
        self, documents: Iterable[Any], timeout_s: float | None = None, *, withdrawn: bool = False
    ) -> Iterator[LoggedPrediction]:
        decisions: Decisions | None = Decisions() if withdrawn else None
        for document in documents:
            try:
                row = from_document(document.id, document.to_dict())
            except ValueError as error:
                raise DamagedLog(f"{self.address} is damaged: {error}; correct or delete that document") from error
            if row.feedback:
                if decisions is None:  # once, and only if it is needed
                    decisions = self.decisions(timeout_s=timeout_s)
                row = dataclasses.replace(row, feedback=decisions.counted(row.feedback))
            yield row

    def _predictions(self) -> Any:
        return self._connected().collection(self.collection)

    def _decisions(self) -> Any:
        return self._connected().collection(f"{self.collection}-decisions")

    def _facts(self) -> Any:
        return self._connected().collection(f"{self.collection}-facts")

    def _connected(self) -> Any:
        with self._lock:
            if self._client is None:
                from google.cloud import firestore

                self._client = firestore.Client(project=self.project, database=self.database)
                _ = self._client._firestore_api  # made on first use; two threads at once would make two
            return self._client

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise SharedLogUnavailable for errors of Google's libraries, and drop the client.

        A client that has lost its server does not always find it again.
        """
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError

        try:
            yield
        except DefaultCredentialsError as error:
            raise SharedLogUnavailable(
                f"{self.address} cannot be used without Google credentials: "
                "run `gcloud auth application-default login`, or give the machine a service account"
            ) from error
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            self.close()
            raise SharedLogUnavailable(f"{self.address} cannot be used: {explain(error)}") from error
        except AttributeError as error:
            if "_predicate" not in str(error):  # what the library raises for a stream that breaks, without a retry
                raise
            self.close()
            raise SharedLogUnavailable(f"{self.address} cannot be used: the connection broke; try again") from error
        except ValueError as error:
            if "Cannot invoke RPC" not in str(error):  # what gRPC raises when another thread has closed the client
                raise
            self.close()
            raise SharedLogUnavailable(
                f"{self.address} cannot be used: the connection was closed; try again"
            ) from error


def _installed() -> bool:
    try:
        return importlib.util.find_spec("google.cloud.firestore") is not None
    except ModuleNotFoundError:
        return False


def _in_window(since_us: int, until_us: int) -> Query:
    from google.cloud.firestore import FieldFilter

    def query(predictions: Any) -> Any:
        found = predictions.where(filter=FieldFilter("time", ">=", to_datetime(max(since_us, 0))))
        if until_us < FOREVER_US:  # neither Firestore nor Python knows later dates
            found = found.where(filter=FieldFilter("time", "<", to_datetime(until_us)))
        # By name too: a page that ends between equal times would lose the rest of them.
        return found.order_by("time").order_by("__name__")

    return query


def _newest_first(predictions: Any) -> Any:
    return predictions.order_by("time", direction="DESCENDING").order_by("__name__", direction="DESCENDING")


def _labelled(predictions: Any) -> Any:
    from google.cloud.firestore import FieldFilter

    return _newest_first(predictions.where(filter=FieldFilter("labelled", "==", True)))


def _feedback_alone(predictions: Any) -> Any:
    return _newest_first(predictions).select(["time", "feedback", "labelled"])


def _model_alone(predictions: Any) -> Any:
    return _newest_first(predictions).select(["time", "model_version", "model_name", "probabilities"])
