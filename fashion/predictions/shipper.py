"""Ships the outbox of a log to Firestore. Knows pauses and retries, not requests or SQL."""

import contextlib
import fcntl
import random
import threading
import time
from typing import IO

from fashion.predictions.firestore import (
    BATCH_BYTES,
    BATCH_ROWS,
    Answer,
    Fate,
    FirestoreLog,
    FirestoreUnavailable,
    _logger,
    document_name,
    request_bytes,
)
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import (
    Backlog,
    Outgoing,
    PredictionRecord,
)

PARENT_SECONDS = 86_400.0
"""How long feedback waits for its prediction to be there."""


class Shipper:
    """Ships a log's outbox, while it is this machine's only one; others wait to take over when its process ends.

    Never holds the log while it waits for the network, so no writer waits with it.
    """

    def __init__(
        self, log: PredictionLog, remote: FirestoreLog, *, idle_s: float = 0.1, longest_pause_s: float = 15.0
    ) -> None:
        """From now on the log keeps what is not shipped, also against `prune`.

        Args:
            idle_s: how often an empty outbox is looked at.
            longest_pause_s: the pauses after failures double up to this.
        """
        self.log, self.remote = log, remote
        self.idle_s, self.longest_pause_s = idle_s, longest_pause_s
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock_file: IO[bytes] | None = None
        self._failures = 0
        self._batch_rows = BATCH_ROWS
        log.ship_to(remote.address)

    def start(self) -> None:
        """Ship from a thread of this process, until `drain`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, name="shipper", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell that there is something to ship, where `idle_s` would be too long to wait."""
        self._wake.set()

    def run(self) -> None:
        """Ship until told to stop by `drain`. Survives whatever goes wrong, and reports it in the log's backlog."""
        try:
            while not self._stop.is_set():
                self._sleep(self._turn())
        finally:
            self._release()

    def ship(self, *, timeout_s: float | None = None, all_due: bool = False) -> int:
        """Send one batch, if this is the machine's shipper, and return how many rows it settled.

        Args:
            all_due: also try what is put off until later.

        Raises:
            FirestoreUnavailable: nothing could be sent; all of it stays in the outbox.
            LogUnavailable: the log failed; what was sent is sent again later, to no effect.
        """
        if not self._alone():
            return 0
        now = time.time_ns() // 1000
        rows = _batch(self.log.outbox(self._batch_rows, 2**62 if all_due else now))
        if not rows:
            return 0
        try:
            answers = self.remote.send(rows, timeout_s=timeout_s)
        except FirestoreUnavailable:
            # A slow line may carry less at once; and one row that the server chokes on must not hold up all.
            self._batch_rows = max(1, len(rows) // 2)
            if len(rows) == 1:
                self.log.settle(deferred=[(rows[0].sequence, now + _pause_us(rows[0], now))])
            raise
        self._batch_rows = min(BATCH_ROWS, 2 * self._batch_rows)
        return self._settle(answers, now)

    def drain(self, deadline_s: float) -> Backlog:
        """Stop the thread, ship what waits, and return what is left then; that stays in the log's file.

        For the end of a process. Where another process ships for this machine, waits for it.
        """
        deadline = time.monotonic() + deadline_s
        self._end_thread(deadline)
        all_due = True
        try:
            while (left := deadline - time.monotonic()) > 0 and self.log.backlog().rows:
                try:
                    settled = self.ship(timeout_s=left, all_due=all_due)
                except OSError as error:
                    self._failed(error)
                    time.sleep(min(left, 0.02 * 2.0 ** min(self._failures, 5)))
                    continue
                if settled:
                    self._succeeded()
                else:
                    all_due = False  # what was put off again is not tried without a pause
                    time.sleep(min(left, 0.02))
        finally:
            self._release()
            self.remote.close()
        return self.log.backlog()

    def _turn(self) -> float:
        """Do what is to be done now; return seconds until the next turn."""
        self._wake.clear()
        try:
            settled = self.ship()
        except Exception as error:  # the thread must outlive anything
            if self._stop.is_set():  # `drain` cut the connection
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
            self.log.report(problem)

    def _succeeded(self) -> None:
        self._failures = 0
        with contextlib.suppress(Exception):
            self.log.report(None)

    def _sleep(self, seconds: float) -> None:
        # Failures are slept out; only an idle shipper is woken.
        (self._stop if self._failures else self._wake).wait(seconds)

    def _settle(self, answers: list[Answer], now: int) -> int:
        shipped, deferred, refused = [], [], []
        for answer in answers:
            row, fate, reason = answer.row, answer.fate, answer.reason
            if fate is Fate.ORPHAN and (why := self._hopeless(row, now)):
                fate, reason = Fate.REFUSED, why
            if fate is Fate.SHIPPED:
                shipped.append(row.sequence)
            elif fate is Fate.REFUSED:
                _logger.warning("prediction %s cannot be shipped: %s", row.item.prediction_id, reason)
                refused.append((row.sequence, reason))
            else:
                deferred.append((row.sequence, now + _pause_us(row, now)))
        self.log.settle(shipped, deferred, refused)
        return len(shipped) + len(refused)

    def _hopeless(self, row: Outgoing, now: int) -> str:
        if self.log.is_refused(row.item.prediction_id):
            return "its prediction was refused"
        if now - row.queued_us > PARENT_SECONDS * 1e6:
            return f"its prediction is not there after {PARENT_SECONDS / 3600:.0f} h"
        return ""

    def _end_thread(self, deadline: float) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is None:
            return
        # A request that is answered ends by itself; one that hangs is cut off.
        self._thread.join(min(1.0, max(0.0, (deadline - time.monotonic()) / 4)))
        if self._thread.is_alive():
            self.remote.close()
            self._thread.join(max(0.0, deadline - time.monotonic()))
        self._thread = None

    def _alone(self) -> bool:
        """Be the machine's only shipper of this log. The kernel takes the lock back when a process dies."""
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
        self._lock_file = file
        return True

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def _batch(rows: list[Outgoing]) -> list[Outgoing]:
    """As many of the oldest as one request may carry. Feedback waits while its own prediction is among them."""
    chosen: list[Outgoing] = []
    size, created = 0, set()
    for row in rows:
        name = document_name(row)
        if name in created:
            continue
        size += request_bytes(row)
        if chosen and size > BATCH_BYTES:
            break
        if isinstance(row.item, PredictionRecord):
            created.add(name)
        chosen.append(row)
    return chosen


def _pause_us(row: Outgoing, now: int) -> int:
    """As long again as it has waited already: 1 s to 10 minutes."""
    return min(max(now - row.queued_us, 1_000_000), 600_000_000)
