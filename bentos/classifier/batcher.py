"""Predict and log all pictures that wait as one batch. Knows no requests and no HTTP.

A thread does: pictures that arrive while a batch runs become the next batch, with one call of the network and one
commit of the log. The disk's sync, which costs more than the network, is shared by all of them, and no picture waits
for a timer. A picture that comes alone does not go to the thread where network and log are quick: to hand it over and
its answer back takes as long as the network.
"""

import asyncio
import dataclasses
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model.predictor import Predictions, Predictor
from fashion.model.typicality import Typicality
from fashion.predictions.database import Busy
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import ModelId, PredictionRecord, new_prediction_id

_logger = logging.getLogger(__name__)

MAX_BATCH = 64
"""Pictures from which on no more are added to a batch: more would only lengthen the wait of the first."""
QUICK_SECONDS = 0.003
"""A picture that comes alone is predicted in the event loop, and no other request is answered meanwhile, where the
latest such pictures took no longer than this, their commit included. A disk that stalls holds the loop up once."""
LATEST = 0.2
"""Weight of the latest picture in how long they took; that of those before falls by as much with each."""


@dataclass(frozen=True)
class BatchTimes:
    """When a batch went through the network and into the log, in nanoseconds since 1970."""

    size: int
    """Pictures in it."""
    taken_ns: int
    """The thread began with it: until then its pictures waited."""
    predicted_ns: int
    logged_ns: int


@dataclass(frozen=True)
class Scored:
    """A prediction that was logged, with its picture."""

    record: PredictionRecord
    image: Images
    """What the network saw: `(size, size)` or `(size, size, C)` uint8."""
    batch: BatchTimes
    typicality: float | None
    """Share of the held-out pictures that are less usual; None where the package cannot tell."""


@dataclass(frozen=True, eq=False)
class Answering:
    """A version that answers."""

    predictor: Predictor
    model: ModelId
    typicality: Typicality | None
    """None where its package cannot tell."""

    def answer(self, images: Sequence[Images]) -> "list[_Answer]":
        """Predict pictures; each has the fields of its record, and its typicality."""
        predictions = self.predictor.predict(np.stack(images))
        shares: Sequence[float | None] = [None] * len(images)
        if self.typicality is not None:
            shares = self.typicality.shares(self.typicality.distances(predictions)).tolist()
        return [_Answer(self.model, *each) for each in zip(_rows(predictions), shares, strict=True)]


@dataclass(frozen=True, eq=False)
class CanaryAnswering(Answering):
    """A version that answers some clients."""

    is_asked: Callable[[str | None, str], bool]
    """Whether it answers, by the client and the sha256 of the picture."""


class _Answer(NamedTuple):
    model: ModelId
    fields: dict[str, Any]
    typicality: float | None


@dataclass
class _Job:
    images: list[Images]
    client: str | None
    started: float
    loop: asyncio.AbstractEventLoop
    done: "asyncio.Future[list[Scored]]"


class Closed(RuntimeError):
    """The batcher accepts no more pictures: the process is ending."""


class Batcher:
    """Predicts and logs as `champion`: with one model, or with a canary beside it."""

    def __init__(
        self,
        predictor: Predictor,
        log: PredictionLog,
        *,
        model: ModelId,
        typicality: Typicality | None = None,
        canary: CanaryAnswering | None = None,
        after: Callable[[Sequence[Scored]], None] = lambda _: None,
    ) -> None:
        """Start the thread.

        Args:
            predictor: of the served version.
            log: gets a record of each prediction.
            model: goes into the records.
            typicality: of the served version; None where its package has none.
            canary: a version that answers some clients; None for none.
            after: called with each logged batch, in the thread that predicted it, once it was answered; must not block
                or raise.
        """
        self.log = log
        self._champion = Answering(predictor, model, typicality)
        self._canary = canary
        self._after = after
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._arrived: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
        self._idle = True
        """Whether the thread waits for a job."""
        self._seconds = math.inf
        """That the latest pictures took that came alone."""
        self._closed = False
        self._closing = threading.Lock()
        """Held while jobs are queued: none comes after the end."""
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    async def predict(self, images: Sequence[Images], *, client: str | None, started: float) -> list[Scored]:
        """Predict and log pictures, all or none. Called from an event loop; returns once the log is on the disk.

        Args:
            images: what the network sees, each `(size, size)` or `(size, size, C)` uint8.
            client: the caller's own tag, for the log.
            started: of `time.perf_counter`, when the request came: the latency counts from there.

        Raises:
            fashion.predictions.record.LogUnavailable: the predictions could not be logged.
            Closed: after `close`.
        """
        if self._closed:
            raise Closed
        loop = asyncio.get_running_loop()
        job = _Job(list(images), client, started, loop, loop.create_future())
        if (arrived := self._arrived.get(loop)) is not None:
            arrived.append(job)
        else:
            self._arrived[loop] = [job]
            loop.call_soon(self._take, loop)  # after all that has arrived by now
        return await job.done

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._closing:
            self._closed = True
            self._jobs.put(None)
        self._thread.join()

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        """Predict a picture that has come alone, or hand all that have come to the thread."""
        jobs = self._arrived.pop(loop)
        if len(jobs) == 1 and self._is_quick(jobs[0]) and self._work_here(jobs[0]):
            return
        with self._closing:
            if not self._closed:
                for job in jobs:
                    self._jobs.put(job)
                return
        self._work(jobs)  # they came before the thread ended

    def _is_quick(self, job: _Job) -> bool:
        return len(job.images) == 1 and self._seconds <= QUICK_SECONDS and self._idle and self._jobs.empty()

    def _work_here(self, job: _Job) -> bool:
        """Predict a picture in the event loop; False, and nothing is done, where another writer holds the log."""
        outcome: list[Scored] | Exception
        try:
            (outcome,) = self._score([job], wait=False)
        except Busy:
            return False
        except Exception as error:
            _resolve([(job, error)])
            return True
        _resolve([(job, outcome)])
        job.loop.call_soon(self._after, outcome)  # the answer goes out before
        return True

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._idle = False
            jobs, ended = [job], False
            size = len(job.images)
            while size < MAX_BATCH:
                try:
                    another = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    ended = True
                    break
                jobs.append(another)
                size += len(another.images)
            self._work(jobs)
            if ended:
                return
            self._idle = True

    def _work(self, jobs: list[_Job]) -> None:
        try:
            scored = self._score(jobs)
        except Exception as error:  # raised again by the `predict` calls that wait
            _resolve_jobs(jobs, [error] * len(jobs))
            return
        _resolve_jobs(jobs, scored)
        self._after([each for part in scored for each in part])

    def _score(self, jobs: list[_Job], *, wait: bool = True) -> list[list[Scored]]:
        """Predict and log all or none.

        Args:
            jobs: whose pictures become one batch.
            wait: for other writers of the log; where not, Busy is raised.
        """
        taken_ns, began = time.time_ns(), time.perf_counter()
        images = [image for job in jobs for image in job.images]
        owners = [job for job in jobs for _ in job.images]
        digests = [image_store.digest(image) for image in images]
        answers = self._answers(images, [owner.client for owner in owners], digests)
        predicted_ns, now = time.time_ns(), time.perf_counter()
        records = [
            PredictionRecord(
                prediction_id=new_prediction_id(),
                time_us=predicted_ns // 1000,
                model_version=answer.model.version,
                model_name=answer.model.name,
                model_digest=answer.model.digest,
                role="champion",
                image_sha256=digest,
                latency_ms=1000 * (now - owner.started),
                client=owner.client,
                **answer.fields,
            )
            for digest, owner, answer in zip(digests, owners, answers, strict=True)
        ]
        self.log.append(records, wait=wait)
        if len(images) == 1:
            took = time.perf_counter() - began
            known = took if math.isinf(self._seconds) else self._seconds
            self._seconds = (1 - LATEST) * known + LATEST * took
        batch = BatchTimes(len(images), taken_ns, predicted_ns, time.time_ns())
        scored = iter(
            Scored(record, image, batch, answer.typicality)
            for record, image, answer in zip(records, images, answers, strict=True)
        )
        return [[next(scored) for _ in job.images] for job in jobs]

    def _answers(
        self, images: Sequence[Images], clients: Sequence[str | None], digests: Sequence[str]
    ) -> "list[_Answer]":
        """The answer to each picture. Where the canary fails, the champion answers."""
        canarys: list[int] = []
        if self._canary is not None:
            is_asked = self._canary.is_asked
            canarys = [row for row, each in enumerate(zip(clients, digests, strict=True)) if is_asked(*each)]
        if self._canary is None or not canarys:
            return self._champion.answer(images)
        answers: dict[int, _Answer] = {}
        try:
            answers = dict(zip(canarys, self._canary.answer([images[row] for row in canarys]), strict=True))
        except Exception:  # a version on trial must cost no client its answer
            _logger.exception("the canary, version %s, failed: the champion answers", self._canary.model.version)
        others = [row for row in range(len(images)) if row not in answers]
        if others:
            answers |= zip(others, self._champion.answer([images[row] for row in others]), strict=True)
        return [answers[row] for row in range(len(images))]


def shadow_records(
    predictions: Predictions, scored: Sequence[Scored], *, model: ModelId, latency_ms: float
) -> list[PredictionRecord]:
    """Make the shadow's records of a batch, under the ids of the champion's.

    Args:
        predictions: of the shadow.
        scored: the champion's, of the same pictures.
        model: the shadow.
        latency_ms: of the shadow, per picture.
    """
    return [
        dataclasses.replace(
            each.record,
            role="shadow",
            model_version=model.version,
            model_name=model.name,
            model_digest=model.digest,
            latency_ms=latency_ms,
            **row,
        )
        for each, row in zip(scored, _rows(predictions), strict=True)
    ]


def _rows(predictions: Predictions) -> list[dict[str, Any]]:
    """Return the fields of each picture's record that come from the model."""
    columns: dict[str, NDArray[Any]] = {
        "label": predictions.labels,
        "confidence": predictions.confidences,
        "probabilities": predictions.probabilities,
        "statistics": predictions.statistics,
        "embedding": predictions.embeddings,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [
        {name: tuple(value) if isinstance(value, list) else value for name, value in zip(columns, row, strict=True)}
        for row in rows
    ]


def _resolve_jobs(jobs: Sequence[_Job], outcomes: "Sequence[list[Scored] | Exception]") -> None:
    """Hand each job its outcome, with one call into each event loop for the whole batch."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, list[Scored] | Exception]]] = {}
    for job, outcome in zip(jobs, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job, outcome))
    for loop, pairs in by_loop.items():
        loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(pairs: "list[tuple[_Job, list[Scored] | Exception]]") -> None:
    for job, outcome in pairs:
        if job.done.cancelled():  # the client has gone; its prediction is logged all the same
            continue
        if isinstance(outcome, Exception):
            job.done.set_exception(outcome)
        else:
            job.done.set_result(outcome)
