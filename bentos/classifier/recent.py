"""The latest predictions, for the monitoring page: of all machines where they share a log. Knows no HTML."""

import threading
import time
from dataclasses import dataclass

from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LoggedPrediction, LogUnavailable
from fashion.predictions.shared_log import SharedLog

ROWS = 1000
"""Predictions that are read: a page costs the same with any traffic."""
KEEP_SECONDS = 30.0
"""How long what was read of the shared log is shown: each row that is read there may be paid for."""
TIMEOUT_S = 3.0
"""How long a page of the shared log may take before this machine's own log is shown instead."""


@dataclass(frozen=True)
class Recent:
    """The latest predictions of the role champion, newest first, and whose they are."""

    rows: tuple[LoggedPrediction, ...]
    source: str
    """One sentence."""


class RecentReader:
    """Reads them. Safe to call from threads."""

    def __init__(self, log: PredictionLog, remote: SharedLog | None) -> None:
        self._log, self._remote = log, remote
        self._lock = threading.Lock()
        self._kept: Recent | None = None
        self._kept_until = 0.0

    def read(self) -> Recent:
        """Return the latest predictions of the shared log, or of this machine where there is none or it fails.

        Raises:
            LogUnavailable: this machine's log is needed, and cannot be read.
        """
        if self._remote is None:
            return self._local("Predictions of this machine.")
        with self._lock:  # one reads, others show what it has read
            if self._kept is None or time.monotonic() > self._kept_until:
                self._kept = self._shared(self._remote)
                self._kept_until = time.monotonic() + KEEP_SECONDS
            return self._kept

    def _shared(self, remote: SharedLog) -> Recent:
        try:
            rows = tuple(remote.latest(ROWS, timeout_s=TIMEOUT_S))
        except LogUnavailable as error:
            return self._local(f"Predictions of this machine alone: {error}.")
        read = time.strftime("%H:%M:%S", time.gmtime())
        return Recent(rows, f"Predictions of all machines, from {remote.address} at {read} UTC.")

    def _local(self, source: str) -> Recent:
        return Recent(tuple(self._log.latest(ROWS, role="champion")), source)
