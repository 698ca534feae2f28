"""The traffic of a day, a week or a month: of this machine's log, and of the requests that its services answered.

Knows no HTML. What of the log is not counted yet is counted in the background, half of the time, so that answers are
not held up.
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bentos.classifier.unlike import Unlike
from bentos.web.request_metrics import RequestMetrics
from bentos.web.responses import ApiError
from fashion.predictions.log import PredictionLog
from fashion.predictions.over_time import OverTime
from fashion.predictions.record import LogUnavailable, ModelId
from fashion.predictions.slot_counting import UntypicalCounter
from fashion.predictions.slots import SPANS, Period, Span

WAIT_SECONDS = 0.3
"""How long a page counts what has changed; the rest is counted in the background."""
TURN_SECONDS = 1.0
"""How long the background counts before it looks for changes, and for the end of the service."""
PAUSE = 1.0
"""How long the background leaves the processor to answers, as a multiple of the time that a slot took."""
STORE_SECONDS = 15.0
"""How often the counts of requests are stored: so many seconds of them are lost where a worker is killed."""
ENDPOINTS = frozenset({"/predict", "/predict/batch"})
"""Requests that are counted."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrafficOverTime:
    """What is known of a span."""

    span: Span
    periods: tuple[Period, ...]
    """Of the served model, in all versions; the oldest first, the last one under way."""
    others: int
    """Predictions of other models in the span, which are in no period."""
    waiting: int
    """Slots that are not counted yet."""
    requests_since_us: int | None
    """From when on requests are counted, microseconds since 1970, UTC; None if none was."""
    problem: str | None = None
    """Why the numbers may be old, or none; one sentence."""


class TrafficReader:
    """Reads it. Safe to call from threads."""

    def __init__(self, log: PredictionLog, requests: RequestMetrics, *, model: ModelId, unlike: Unlike) -> None:
        """
        Args:
            log: of this machine.
            requests: of this worker.
            model: what is served.
            unlike: tells pictures that are unlike what the model has learnt.
        """
        counter = None if unlike.typicality is None else UntypicalCounter(model, unlike.share, unlike.count_features)
        self._over_time = OverTime(log, untypical=counter)
        self._requests, self._model = requests, model
        self._stored: Counter[int] = Counter()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._background: threading.Thread | None = None
        threading.Thread(target=self._store_now_and_then, name="counts of requests", daemon=True).start()

    def close(self) -> None:
        """Store what was counted, and close the file."""
        self._closing.set()
        if self._background is not None:
            self._background.join()
        self.store_requests()
        self._over_time.close()

    def read(self, span: Span) -> TrafficOverTime:
        """Return a span of what is counted; the rest is counted from then on.

        Args:
            span: one of `SPANS`.
        """
        self.store_requests()
        problem = None
        try:
            if self._over_time.advance(WAIT_SECONDS):
                self._count_in_background()
        except LogUnavailable as error:
            problem = f"The log cannot be counted now: {error}."
        try:
            waiting, since = self._over_time.waiting(), self._over_time.requests_since_us()
            periods = self._over_time.periods(span)
        except LogUnavailable as error:
            return TrafficOverTime(span, (), 0, 0, None, f"The counts of the log cannot be read now: {error}.")
        others = 0
        for period in periods:
            for version in [each for each in period.versions if each.model.name != self._model.name]:
                others += period.versions.pop(version).rows
        return TrafficOverTime(span, tuple(periods), others, waiting, since, problem)

    def store_requests(self) -> None:
        """Add what this worker has answered since the last time to the counts of the machine."""
        with self._lock:
            now: Counter[int] = Counter()
            for (endpoint, status), count in list(self._requests.answered.items()):
                if endpoint in ENDPOINTS:
                    now[status] += count
            new = now - self._stored
            if not new:
                return
            try:
                self._over_time.add_requests(new)
                self._stored = now
            except LogUnavailable as error:  # they are stored with the next ones
                _logger.warning("requests are not counted: %s", error)

    def _store_now_and_then(self) -> None:
        while not self._closing.wait(STORE_SECONDS):
            self.store_requests()

    def _count_in_background(self) -> None:
        with self._lock:
            if (self._background is None or not self._background.is_alive()) and not self._closing.is_set():
                self._background = threading.Thread(target=self._count, name="traffic", daemon=True)
                self._background.start()

    def _count(self) -> None:
        try:
            while not self._closing.is_set() and self._over_time.advance(TURN_SECONDS, pause=PAUSE):
                pass
        except LogUnavailable as error:
            _logger.warning("the log is not counted: %s", error)


def span_of(query: Mapping[str, str]) -> Span:
    """The span that a query asks for; a day where it does not.

    Args:
        query: the parameters of a request.

    Raises:
        ApiError: 422, there is no such span.
    """
    name = query.get("span", "day")
    if name not in SPANS:
        names = ", ".join(SPANS)
        remedy = "leave it out to see a day"
        raise ApiError(422, "bad_field", f"span must be one of {names}, got {name[:40]!r}", remedy)
    return SPANS[name]
