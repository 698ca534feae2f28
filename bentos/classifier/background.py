"""Work that no answer waits for: scoring by a shadow, storing pictures. Bounded, and of low priority. Knows no HTTP."""

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bentos.classifier.batcher import Scored, shadow_records
from bentos.classifier.deployment import Deployment
from bentos.classifier.served import read_verified
from fashion.home import Home
from fashion.images import image_store
from fashion.model.package import DamagedPackage
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable, ModelId
from fashion.storage.address import open_store
from fashion.storage.blobs import Store, StoreUnavailable

STORE_SECONDS = 10.0
"""How long a bucket may take: a request of a client may wait for it."""

CAPACITY = 4096
"""Pictures that may wait; more are dropped, and counted."""
BATCH = 32
"""Most pictures of one call."""
WRITTEN_SECONDS = 600.0
"""How long a picture that was stored is taken to be there."""
NICENESS = 10
"""Scheduling priority of the thread; 19 is the lowest."""

_logger = logging.getLogger(__name__)


class Background:
    """A thread that does one kind of work on predictions that were answered."""

    def __init__(self, name: str, work: Callable[[list[Scored]], None], *, capacity: int = CAPACITY) -> None:
        """Start the thread.

        Args:
            name: of the work, in metrics and in the log.
            work: done on each batch; may raise.
            capacity: pictures that may wait.
        """
        self.name, self._work = name, work
        self.done = self.dropped = self.failed = 0
        self._queue: queue.Queue[Scored | None] = queue.Queue(capacity)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def offer(self, scored: Sequence[Scored]) -> None:
        """Queue predictions without waiting; those that do not fit are dropped."""
        for each in scored:
            try:
                self._queue.put_nowait(each)
            except queue.Full:
                self.dropped += 1

    @property
    def waiting(self) -> int:
        """Count the pictures in the queue."""
        return self._queue.qsize()

    def close(self, deadline_s: float) -> None:
        """Finish what waits, and end the thread; give up after `deadline_s` seconds."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=deadline_s)
        self._thread.join(deadline_s)

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # Linux: a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while (first := self._queue.get()) is not None:
            batch, ended = [first], False
            while len(batch) < BATCH:
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
            except Exception as error:  # the thread goes on with the next batch
                if self.failed == 0 or not isinstance(error, (LogUnavailable, StoreUnavailable)):
                    _logger.warning("%s: %s: %s", self.name, type(error).__name__, error)
                self.failed += len(batch)
            if ended:
                return


def shadow(predictor: Predictor, log: PredictionLog, *, model: ModelId) -> Background:
    """Start to score with another model and to log its predictions as `shadow`.

    Args:
        predictor: of the other version.
        log: the champion's.
        model: goes into the records.
    """

    def work(batch: list[Scored]) -> None:
        started = time.perf_counter()
        predictions = predictor.predict(np.stack([each.image for each in batch]))
        latency_ms = 1000 * (time.perf_counter() - started) / len(batch)
        log.append(shadow_records(predictions, batch, model=model, latency_ms=latency_ms))

    return Background("shadow", work)


def image_writer(store: Store) -> Background:
    """Start to store what the network saw, as PNG under the sha256 of its pixels."""
    # The latest, in order of time: the same picture is stored once. Not for long, for retention may delete it.
    written: dict[str, float] = {}

    def work(batch: list[Scored]) -> None:
        for each in batch:
            sha256, now = each.record.image_sha256, time.monotonic()
            if now - written.get(sha256, -WRITTEN_SECONDS) >= WRITTEN_SECONDS:
                image_store.put(store, each.image, sha256)
                written.pop(sha256, None)
                written[sha256] = now
                if len(written) > CAPACITY:
                    del written[next(iter(written))]

    return Background("images", work)


def start(deployment: Deployment, log: PredictionLog, home: Home, shadow_folder: Path | None) -> list[Background]:
    """Start the kinds of work that a deployment asks for.

    Args:
        deployment: names the shadow, and says whether pictures are stored.
        log: the champion's.
        home: where pictures are stored.
        shadow_folder: package of the version that scores without answering; None without one.
    """
    works = []
    if deployment.settings.log.images:
        works.append(image_writer(open_store(home.images, timeout_s=STORE_SECONDS)))
    if shadow_folder is not None:
        assert deployment.shadow is not None
        version = str(deployment.shadow["version"])
        try:
            scores = read_verified(shadow_folder, deployment.shadow)
            model = ModelId.of(deployment.shadow["name"], version, scores.digest)
            works.append(shadow(Predictor(scores), log, model=model))
        except DamagedPackage as error:  # a version that answers nobody must not stop the one that does
            _logger.error("the shadow, version %s, scores nothing: %s", version, error)
    return works
