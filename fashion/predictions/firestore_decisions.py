"""Decisions on feedback as Firestore documents, and those that were read before: each that is read is paid for.

A decision's document is named by the time at which it was written, so that new ones come last. Imports nothing of
Google's.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from fashion.predictions.withdrawal import FIELDS, Decision, Decisions

OVERLAP_NS = 300 * 10**9
"""Decisions that were written so shortly before the last reading are read again: clocks of machines differ, and writing
takes a moment."""
REREAD_SECONDS = 3600.0
"""All are read again after this: one of a clock that was more than OVERLAP_NS behind counts then, and what was deleted
is forgotten."""

Content = Mapping[str, Any]
Read = Callable[[str], Mapping[str, Content]]
"""Takes a name, and returns the documents of that name and of later ones, by name; of the empty name all."""


def name_of(time_ns: int, number: int = 0) -> str:
    """The name of a decision's document. Later ones come later in the order of texts.

    Args:
        time_ns: when it is written, nanoseconds since 1970.
        number: of the decision, among those of one call.
    """
    return f"{max(time_ns, 0):020d}-{number:06d}"


def to_document(decision: Decision) -> dict[str, Any]:
    """Return the fields of a decision's document."""
    return dict(zip(FIELDS, decision.as_row(), strict=True))


class KnownDecisions:
    """All decisions of one collection, of which new ones alone are read. Safe to call from threads."""

    def __init__(self, *, reread_seconds: float = REREAD_SECONDS) -> None:
        """
        Args:
            reread_seconds: after which all are read again.
        """
        self._reread_seconds = reread_seconds
        self._lock = threading.Lock()
        self._documents: dict[str, Content] = {}
        self._decisions = Decisions()
        self._read_ns = 0
        self._stale_at = 0.0
        """When all are to be read again, of `time.monotonic`."""

    def update(self, read: Read) -> Decisions:
        """Return all decisions, the oldest first, with those of other machines that are new.

        Args:
            read: reads documents; called once. What it raises is raised.
        """
        started_ns, started = time.time_ns(), time.monotonic()
        with self._lock:
            is_whole = started >= self._stale_at
            since = name_of(min(self._read_ns, started_ns) - OVERLAP_NS)
        found = read("" if is_whole else since)  # without the lock: another thread may have less time
        with self._lock:
            known = self._documents
            if is_whole:  # but for what another thread has found meanwhile
                known = {name: content for name, content in known.items() if name >= name_of(started_ns - OVERLAP_NS)}
                self._stale_at = started + self._reread_seconds
            self._read_ns = started_ns
            self._keep({**known, **found})
            return self._decisions

    def forget(self, prediction_id: str) -> None:
        """Drop the decisions on one prediction."""
        with self._lock:
            self._keep(
                {
                    name: content
                    for name, content in self._documents.items()
                    if content["prediction_id"] != prediction_id
                }
            )

    def _keep(self, documents: dict[str, Content]) -> None:
        if documents.keys() != self._documents.keys():  # a document never changes
            ordered = (documents[name] for name in sorted(documents))
            self._decisions = Decisions(Decision(*(content[name] for name in FIELDS)) for content in ordered)
        self._documents = documents
