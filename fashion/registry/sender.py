"""Log a training's epochs to MLflow in the background: a server that is away delays them and stops nothing.

Knows no training: an epoch is a number with metrics and a picture.
"""

import base64
import collections
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlflow import MlflowClient

from fashion.registry import server, tracking
from fashion.storage.blobs import BlobNotFound, Store

UNSENT = "unsent.json"
"""Blob beside a checkpoint, with the epochs that no server took before the task ended."""
RETRY_SECONDS = 20.0
"""Between two tries to reach a server that is away."""
MAX_PICTURES = 20
"""Epochs that wait with their picture; those before them lose it, and wait without."""


@dataclass(frozen=True)
class Record:
    """What is logged of one epoch."""

    step: int
    metrics: Mapping[str, float]
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """Series -> PNG."""
    time_ms: int = field(default_factory=lambda: int(time.time() * 1000))


class Sender:
    """Sends records in order, each step once over all attempts and resumed runs, from a thread of its own."""

    def __init__(self, run_id: str, *, key: str, report: Callable[[str], None]) -> None:
        """
        Args:
            run_id: of the MLflow run.
            key: a metric that each record has: a step that has it in MLflow is not sent again.
            report: called when the server goes away and when it is back.
        """
        self._run_id, self._key, self._report = run_id, key, report
        self._waiting: collections.deque[Record] = collections.deque()
        self._changed = threading.Condition()
        self._deadline: float | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Send a record soon.

        Raises:
            Exception: what an earlier record met, other than a server that is away, such as a full disk.
        """
        if self._error is not None:
            raise self._error
        with self._changed:
            self._waiting.append(record)
            if len(self._waiting) > MAX_PICTURES:
                bare = len(self._waiting) - MAX_PICTURES - 1
                self._waiting[bare] = replace(self._waiting[bare], pictures={})
            self._changed.notify()

    def close(self, timeout_s: float) -> list[Record]:
        """Send what waits, and return what could not be sent in time. Call once.

        Raises:
            Exception: as `put`.
        """
        with self._changed:
            self._deadline = time.monotonic() + timeout_s
            self._changed.notify()
        self._thread.join(timeout_s)
        if self._error is not None:
            raise self._error
        with self._changed:
            return list(self._waiting)

    def _work(self) -> None:
        logged: set[int] | None = None
        is_away = False
        while (record := self._next()) is not None:
            try:
                if logged is None:
                    logged = logged_steps(self._run_id, self._key)
                if record.step not in logged:
                    send(self._run_id, record)
                    logged.add(record.step)
            except Exception as error:
                away = server.explain(error)
                if away is None:
                    self._error = error
                    return
                if not is_away:
                    self._report(f"{away}; training goes on, and its metrics wait for the server")
                is_away, logged = True, None  # what failed may have been stored
                self._rest()
                continue
            with self._changed:
                self._waiting.popleft()
            if is_away:
                is_away = False
                self._report("MLflow is back: the metrics that waited are sent")

    def _next(self) -> Record | None:
        """The record to send next; None once there will be no more, or no time for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._deadline is not None)
            is_late = self._deadline is not None and time.monotonic() > self._deadline
            return self._waiting[0] if self._waiting and not is_late else None

    def _rest(self) -> None:
        with self._changed:
            if self._deadline is None:
                self._changed.wait_for(lambda: self._deadline is not None, RETRY_SECONDS)
        if self._deadline is not None:
            time.sleep(min(1.0, max(0.0, self._deadline - time.monotonic())))


def send(run_id: str, record: Record) -> None:
    """Log one record now."""
    tracking.log_metrics(run_id, record.metrics, step=record.step, time_ms=record.time_ms)
    for series, png in record.pictures.items():
        tracking.log_image(run_id, series, png, step=record.step)


def logged_steps(run_id: str, key: str) -> set[int]:
    """Steps at which a run has a metric."""
    return {metric.step for metric in MlflowClient().get_metric_history(run_id, key)}


def keep(store: Store, records: Sequence[Record], *, key: str) -> None:
    """Store records beside a checkpoint, for `send_kept` of a later task.

    Args:
        store: with the checkpoint.
        records: in order.
        key: as for `Sender`.
    """
    content = [
        {
            "step": record.step,
            "time_ms": record.time_ms,
            "metrics": dict(record.metrics),
            "pictures": {series: base64.b64encode(png).decode() for series, png in record.pictures.items()},
        }
        for record in records
    ]
    store.put(UNSENT, json.dumps({"key": key, "records": content}).encode())


def send_kept(store: Store, run_id: str) -> int:
    """Log the records that an earlier task stored, and return how many there were.

    Args:
        store: with the checkpoint.
        run_id: of the MLflow run.
    """
    try:
        kept = json.loads(store.get(UNSENT))
    except BlobNotFound:
        return 0
    if not kept["records"]:
        return 0
    logged = logged_steps(run_id, kept["key"])
    for each in kept["records"]:
        if each["step"] not in logged:
            pictures = {series: base64.b64decode(png) for series, png in each["pictures"].items()}
            send(run_id, Record(each["step"], each["metrics"], pictures, each["time_ms"]))
    keep(store, (), key=kept["key"])
    return len(kept["records"])
