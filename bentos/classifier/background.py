"""Work that no answer waits for: scoring by a shadow, keeping pictures. Bounded, and below everything in priority."""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from bentos.classifier.batcher import Scored, shadow_records
from fashion.images import image_store
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable
from fashion.storage.blobs import Store, StoreUnavailable

CAPACITY = 4096
"""Pictures that may wait; beyond that they are dropped, and counted."""
TOGETHER = 32
NICENESS = 10

_logger = logging.getLogger(__name__)


class Background:
    """A thread that does one kind of work on what was scored."""

    def __init__(self, name: str, work: Callable[[list[Scored]], None], *, capacity: int = CAPACITY) -> None:
        self.name, self._work = name, work
        self.done = self.dropped = self.failed = 0
        self._queue: queue.Queue[Scored | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, scored: Sequence[Scored]) -> None:
        """Take work without waiting; what does not fit is dropped."""
        for each in scored:
            try:
                self._queue.put_nowait(each)
            except queue.Full:
                self.dropped += 1

    @property
    def waiting(self) -> int:
        """Pictures in the queue."""
        return self._queue.qsize()

    def close(self, deadline_s: float) -> None:
        """Finish what waits, for so long."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=deadline_s)
        self._thread.join(deadline_s)

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux: a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (first := self._queue.get()) is not None:
            batch, ended = [first], False
            while len(batch) < TOGETHER:
                try:
                    another = self._queue.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    ended = True
                    break
                batch.append(another)
            try:
                self._work(batch)
                self.done += len(batch)
            except Exception as error:  # nothing that goes wrong here may end it
                if self.failed == 0 or not isinstance(error, (LogUnavailable, StoreUnavailable)):
                    _logger.warning("%s: %s: %s", self.name, type(error).__name__, error)
                self.failed += len(batch)
            if ended:
                return


def shadow(predictor: Predictor, log: PredictionLog, *, model_version: str) -> Background:
    """Score by another model, and log as `shadow`."""

    def work(batch: list[Scored]) -> None:
        started = time.perf_counter()
        found = predictor.predict(np.stack([each.image for each in batch]))
        latency_ms = 1000 * (time.perf_counter() - started) / len(batch)
        log.append(shadow_records(found, batch, model_version=model_version, latency_ms=latency_ms))

    return Background("shadow", work)


def keeper(store: Store) -> Background:
    """Keep what the network saw, as PNG under the sha256 of its pixels."""
    kept: dict[str, None] = {}

    def work(batch: list[Scored]) -> None:
        for each in batch:
            sha256 = each.record.image_sha256
            if sha256 not in kept:
                image_store.put(store, each.image, sha256)
                kept[sha256] = None
                if len(kept) > CAPACITY:
                    del kept[next(iter(kept))]

    return Background("images", work)
