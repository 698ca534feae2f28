"""Write rows to a collection of Firestore, and return the outcome of each. Knows no connection and no errors of it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fashion.predictions.firestore_documents import document_name, to_document, to_element
from fashion.predictions.firestore_errors import reason_of
from fashion.predictions.outbox import Outgoing
from fashion.predictions.record import Feedback, PredictionRecord, request_bytes
from fashion.predictions.shared_log import Delivery, Outcome

DOCUMENT_BYTES = 2**20
"""The largest document that Firestore takes."""
_OK, _ALREADY_EXISTS, _NOT_FOUND = 0, 6, 5
_PERMANENT = {3, 9, 11, 12, 15}
"""gRPC: invalid argument, failed precondition, out of range, unimplemented, data loss. Others may be temporary."""


@dataclass(frozen=True)
class _Write:
    """One document's write: a prediction, or all feedback on one."""

    name: str
    rows: tuple[Outgoing, ...]


class Writer:
    """Writes to one collection."""

    def __init__(self, client: Any, predictions: Any, *, expire_days: float | None) -> None:
        """
        Args:
            client: of Firestore.
            predictions: the collection.
            expire_days: let predictions expire this many days after they were made.
        """
        self._client, self._predictions, self._expire_days = client, predictions, expire_days

    def write(self, rows: Sequence[Outgoing], deadline: float) -> Iterator[Delivery]:
        """Write rows in as few requests as they need, and yield the outcome of each.

        Args:
            rows: predictions, and feedback on them.
            deadline: of all requests, by time.monotonic.

        Raises:
            google.api_core.exceptions.GoogleAPIError: Firestore cannot be used.
        """
        yield from self._send(_writes(rows), deadline)

    def _send(self, writes: list[_Write], deadline: float) -> Iterator[Delivery]:
        from google.api_core.exceptions import InvalidArgument, ResourceExhausted
        from google.cloud.firestore_v1.bulk_batch import BulkWriteBatch

        if not writes:
            return
        # A batch, not BulkWriter: that one silently loses writes while the server is down.
        batch, sent = BulkWriteBatch(self._client), list[_Write]()
        for write in writes:
            try:
                self._add(batch, write)
                sent.append(write)
            except (TypeError, ValueError, OverflowError) as error:
                yield from _deliveries(write, Outcome.REFUSED, f"cannot be a document: {error}")
        if not sent:
            return
        try:
            response = batch.commit(retry=None, timeout=seconds_left(deadline))
        except (InvalidArgument, ResourceExhausted) as error:
            size = sum(request_bytes(row.item) for write in sent for row in write.rows)
            if isinstance(error, ResourceExhausted) and size < DOCUMENT_BYTES:
                raise  # a quota, not the request's size
            if len(sent) == 1:
                yield from _deliveries(sent[0], Outcome.REFUSED, reason_of(error))
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

        reference, item = self._predictions.document(write.name), write.rows[0].item
        if isinstance(item, PredictionRecord):
            batch.create(reference, to_document(item, expire_days=self._expire_days))
        else:
            # A union adds only what is missing, so feedback that is sent twice is stored once.
            elements = [to_element(row.item) for row in write.rows if isinstance(row.item, Feedback)]
            batch.update(reference, {"feedback": ArrayUnion(elements), "labelled": True})


def seconds_left(deadline: float) -> float:
    """Seconds until a moment of time.monotonic; a request needs some."""
    return max(0.1, deadline - time.monotonic())


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
