"""Ships the outbox of a log to the shared log, in one process of a machine at a time.

Knows pauses and retries, and no database.
"""

import contextlib
import fcntl
import logging
import random
import threading
import time
from typing import IO

from fashion.predictions.log import PredictionLog
from fashion.predictions.outbox import Backlog, Outgoing
from fashion.predictions.record import PredictionRecord, request_bytes
from fashion.predictions.shared_log import (
    BATCH_BYTES,
    BATCH_ROWS,
    Delivery,
    Outcome,
    SharedLog,
    SharedLogUnavailable,
)

PARENT_SECONDS = 86_400.0
"""How long feedback waits for its prediction to be stored."""

_logger = logging.getLogger(__name__)


class Shipper:
    """Ships a log's outbox. Of a machine's shippers one is active; another takes over when its process ends.

    Does not hold the log's file while it waits for the network, so writers never wait for the network.
    """

    def __init__(
        self, log: PredictionLog, remote: SharedLog, *, idle_s: float = 0.1, longest_pause_s: float = 15.0
    ) -> None:
        """Make `remote` the log's destination: from now on `prune` spares rows that are not shipped.

        Args:
            log: whose outbox is shipped.
            remote: where to.
            idle_s: seconds between looks at an empty outbox.
            longest_pause_s: pauses after failures double up to this many seconds.

        Raises:
            LogUnavailable: the log cannot be written.
        """
        self.log, self.remote = log, remote
        self.idle_s, self.longest_pause_s = idle_s, longest_pause_s
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock_file: IO[bytes] | None = None
        self._failures = 0
        self._batch_rows = BATCH_ROWS
        log.outbox.ship_to(remote.address)

    def start(self) -> None:
        """Ship from a thread of this process, until `drain`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, name="shipper", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ship now instead of after `idle_s`."""
        self._wake.set()

    def run(self) -> None:
        """Ship until `drain` is called. Survives every error, and reports it in the backlog."""
        try:
            while not self._stop.is_set():
                self._sleep(self._turn())
        finally:
            self._release()

    def acquire(self) -> bool:
        """Try to become the machine's active shipper of this log; return True on success."""
        if self._lock_file is not None:
            return True
        path = self.log.path.with_name(f"{self.log.path.name}.shipper")
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except BaseException:
            file.close()
            raise
        self._lock_file = file  # the kernel frees the lock when the process dies
        return True

    def ship(self, *, timeout_s: float | None = None, all_due: bool = False) -> int:
        """Send one batch, if this is the machine's active shipper, and return how many rows left the queue.

        Args:
            timeout_s: how long the request may take.
            all_due: also send rows that are deferred until later.

        Raises:
            SharedLogUnavailable: the request failed; all of its rows stay in the outbox.
            LogUnavailable: the log failed; rows that were sent are sent again later, which changes nothing.
        """
        if not self.acquire():
            return 0
        now = time.time_ns() // 1000
        rows = _batch(self.log.outbox.due(self._batch_rows, 2**62 if all_due else now))
        if not rows:
            return 0
        try:
            deliveries = self.remote.send(rows, timeout_s=timeout_s)
        except SharedLogUnavailable:
            # Smaller batches: for a slow line, and so that one row that always fails does not block the others.
            self._batch_rows = max(1, len(rows) // 2)
            if len(rows) == 1:
                self.log.outbox.settle(deferred=[(rows[0].sequence, now + _pause_us(rows[0], now))])
            raise
        self._batch_rows = min(BATCH_ROWS, 2 * self._batch_rows)
        return self._settle(deliveries, now)

    def drain(self, deadline_s: float) -> Backlog:
        """Stop the thread, ship what waits, and return what is left; that stays in the log's file.

        For the end of a process. Where another process is the machine's active shipper, waits for it.

        Args:
            deadline_s: how long this may take.
        """
        deadline = time.monotonic() + deadline_s
        self._end_thread(deadline)
        all_due = True
        try:
            while (left := deadline - time.monotonic()) > 0 and self.log.outbox.backlog().rows:
                try:
                    settled = self.ship(timeout_s=left, all_due=all_due)
                except OSError as error:
                    self._failed(error)
                    time.sleep(min(left, 0.02 * 2.0 ** min(self._failures, 5)))
                    continue
                if settled:
                    self._succeeded()
                else:
                    all_due = False  # rows that were deferred again wait for their time
                    time.sleep(min(left, 0.02))
        finally:
            self._release()
            self.remote.close()
        return self.log.outbox.backlog()

    def _turn(self) -> float:
        """Ship one batch; return the seconds until the next."""
        self._wake.clear()
        try:
            settled = self.ship()
        except Exception as error:  # the thread must outlive anything
            if self._stop.is_set():  # `drain` closed the connection
                return 0.0
            self._failed(error)
            return min(self.longest_pause_s, 0.1 * 2.0 ** min(self._failures, 16)) * random.uniform(0.5, 1)
        if settled:
            self._succeeded()
            return 0.0
        return self.idle_s if self._lock_file else 10 * self.idle_s

    def _failed(self, error: Exception) -> None:
        problem = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        if self._failures == 0:
            _logger.warning("%s; predictions stay in %s until then", problem, self.log.path)
        self._failures += 1
        with contextlib.suppress(Exception):  # the log may be what failed
            self.log.outbox.report(problem)

    def _succeeded(self) -> None:
        self._failures = 0
        with contextlib.suppress(Exception):
            self.log.outbox.report(None)

    def _sleep(self, seconds: float) -> None:
        # `wake` ends an idle pause only: a pause after a failure is kept.
        (self._stop if self._failures else self._wake).wait(seconds)

    def _settle(self, deliveries: list[Delivery], now: int) -> int:
        shipped, deferred, refused = [], [], []
        for delivery in deliveries:
            row, outcome, reason = delivery.row, delivery.outcome, delivery.reason
            if outcome is Outcome.ORPHAN and (why := self._reason_to_give_up(row, now)):
                outcome, reason = Outcome.REFUSED, why
            if outcome is Outcome.SHIPPED:
                shipped.append(row.sequence)
            elif outcome is Outcome.REFUSED:
                _logger.warning("prediction %s cannot be shipped: %s", row.item.prediction_id, reason)
                refused.append((row.sequence, reason))
            else:
                deferred.append((row.sequence, now + _pause_us(row, now)))
        self.log.outbox.settle(shipped, deferred, refused)
        return len(shipped) + len(refused)

    def _reason_to_give_up(self, row: Outgoing, now: int) -> str:
        if self.log.outbox.is_refused(row.item.prediction_id):
            return "its prediction was refused"
        if now - row.queued_us > PARENT_SECONDS * 1e6:
            return f"its prediction is not there after {PARENT_SECONDS / 3600:.0f} h"
        return ""

    def _end_thread(self, deadline: float) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is None:
            return
        # A request normally ends by itself; closing the connection ends one that hangs.
        self._thread.join(min(1.0, max(0.0, (deadline - time.monotonic()) / 4)))
        if self._thread.is_alive():
            self.remote.close()
            self._thread.join(max(0.0, deadline - time.monotonic()))
        self._thread = None

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def _batch(rows: list[Outgoing]) -> list[Outgoing]:
    """Return as many of the oldest as fit in one request. Feedback on a prediction of the same batch waits."""
    batch: list[Outgoing] = []
    size, created = 0, set()
    for row in rows:
        name = (row.item.prediction_id, getattr(row.item, "role", "champion"))
        if name in created:
            continue
        size += request_bytes(row.item)
        if batch and size > BATCH_BYTES:
            break
        if isinstance(row.item, PredictionRecord):
            created.add(name)
        batch.append(row)
    return batch


def _pause_us(row: Outgoing, now: int) -> int:
    """Return how long a row is deferred: as long as it has waited already, 1 s to 10 minutes."""
    return min(max(now - row.queued_us, 1_000_000), 600_000_000)
