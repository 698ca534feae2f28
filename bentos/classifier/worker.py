"""What stands behind the endpoints in one worker: the model, the log, and all that is done with both. Knows no HTTP."""

import asyncio
import base64
import contextlib
import csv
import io
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bentos.classifier import background
from bentos.classifier.batcher import Batcher, Scored
from bentos.classifier.metrics import ServiceMetrics
from bentos.web import responses
from bentos.web.auth import Keys, RateLimit
from bentos.web.responses import ApiError
from bentos.web.uploads import Part
from fashion.config.serve import ServiceConfig
from fashion.home import Home
from fashion.images import image_store, preparation
from fashion.images.decoding import BadPicture
from fashion.images.preparation import Fitted
from fashion.images.statistics import STATISTICS
from fashion.model import explanation, package
from fashion.model.package import Package
from fashion.model.predictor import Predictor
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import Feedback, LoggedPrediction, LogUnavailable, UnknownPrediction
from fashion.storage.address import open_store

SMALL_BYTES = 2560
"""Uploads up to this are decoded where they arrive: a 28x28 colour BMP is. Handing over would take longer."""
SMALL_PIXELS = 65_536
"""And with up to so many pixels: a few bytes can hold a large picture of one colour."""
DECODERS = 2
RETENTION_SECONDS = 3600.0
POLL_SECONDS = 0.01
CSV_ROWS = 10_000

T = TypeVar("T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deployment:
    """What DeployFlow has written down: the versions, and how to serve them."""

    settings: ServiceConfig
    model: Mapping[str, Any]
    """name, version, tag of the model in BentoML's store, summary, lineage."""
    shadow: Mapping[str, Any] | None
    home: str
    """Where state lives, unless FASHION_HOME says otherwise."""


class Worker:
    """One worker's model and log."""

    def __init__(
        self,
        deployment: Deployment,
        home: Home,
        environment: Mapping[str, str],
        *,
        model: Path,
        shadow: Path | None,
        folder: Path,
    ) -> None:
        """Load the model, open the log, start the threads.

        Args:
            model: the served version's package.
            folder: where `page/` and `gallery/` lie.

        Raises:
            fashion.model.package.DamagedPackage: the model is not what was registered.
            fashion.predictions.record.LogUnavailable: the log cannot be opened.
            ValueError: predictions are to be acknowledged by Firestore, and no FASHION_FIRESTORE says which.
        """
        self.settings, self.deployment = deployment.settings, deployment
        self.package: Package = package.read(model)
        self.page, self.gallery = folder / "page", folder / "gallery"
        self.reports = open_store(home.reports)
        self.keys = Keys(environment)
        self.rate = RateLimit(self.settings.limits.requests_per_minute)
        self.measures = ServiceMetrics()
        self.log = PredictionLog(home.predictions)
        self._version = str(deployment.model["version"])
        self._labels = {name: label for label, name in enumerate(self.package.class_names)}
        self._predictor = Predictor(self.package)
        self._predictor.predict(_blank(self.package, 1))  # the first call of a network is the slowest
        self._remote, self._shipper = _shipping(self.log, home, self.settings)
        self._background = _background(self, home, shadow)
        self._engine = Batcher(self._predictor, self.log, model_version=self._version, after=self._after)
        self._pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="pictures")
        self._stop = threading.Event()
        if self.settings.log.retention_days is not None:
            threading.Thread(target=self._retain, name="retention", daemon=True).start()

    def close(self) -> None:
        """Finish what was taken, ship what can be shipped, and close the log."""
        self._stop.set()
        self._engine.close()
        self._pool.shutdown()
        seconds = self.settings.log.drain_seconds
        for work in self._background:
            work.close(seconds)
        if self._shipper is not None:
            left = self._shipper.drain(seconds)
            if left.rows:
                _logger.warning("%d rows stay in %s until they can be shipped", left.rows, self.log.path)
        self.log.close()

    async def predict(self, data: bytes, *, explain: bool, client: str | None, started: float) -> dict[str, Any]:
        """Predict one picture, and log it.

        Raises:
            Refusal: it cannot be read.
            fashion.predictions.record.LogUnavailable: it cannot be logged.
        """
        try:
            fitted = await self._fit(data)
        except BadPicture as error:
            raise responses.of_picture(error) from None
        (scored,) = await self._engine.predict([fitted.image], client=client, started=started)
        content = self._told(scored, fitted) | await self._kept([scored.record.prediction_id])
        if explain:
            content |= await self._in_pool(self._explained, scored)
        return content

    async def predict_batch(self, files: Sequence[Part], *, client: str | None, started: float) -> dict[str, Any]:
        """Predict pictures, each with its result or its error, in the order they came.

        Raises:
            fashion.predictions.record.LogUnavailable: they cannot be logged.
        """
        tried = await asyncio.gather(*(self._fit(part.data) for part in files), return_exceptions=True)
        good = [fitted for fitted in tried if isinstance(fitted, Fitted)]
        images = [fitted.image for fitted in good]
        found = await self._engine.predict(images, client=client, started=started) if images else []
        kept = await self._kept([each.record.prediction_id for each in found])
        scored = iter(found)
        results = []
        for part, fitted in zip(files, tried, strict=True):
            head = {"filename": part.filename}
            if isinstance(fitted, Fitted):
                results.append(head | self._told(next(scored), fitted))
            elif isinstance(fitted, BadPicture):
                results.append(head | responses.shape(responses.of_picture(fitted)))
            else:
                raise fitted
        return {"results": results, "predicted": len(good), "refused": len(files) - len(good), **kept}

    async def feedback(self, prediction_id: str, true_label: str | int, source: str = "api") -> dict[str, Any]:
        """Keep what a prediction should have been.

        Raises:
            Refusal: the prediction is unknown, or the label is none of the classes.
        """
        try:
            given = Feedback(prediction_id, self._label(true_label), source, time.time_ns() // 1000)
        except ValueError as error:
            raise ApiError(422, "bad_field", str(error), "send a short name of who says so") from None
        await asyncio.to_thread(self._keep_feedback, given)
        told = {"prediction_id": prediction_id, "true_label": self.package.class_names[given.true_label]}
        return told | await self._kept([prediction_id])

    async def feedback_csv(self, body: bytes) -> dict[str, Any]:
        """Keep the rows of a table; each that cannot be kept is told with its line.

        Raises:
            Refusal: it is no table with `prediction_id` and `true_label`.
        """
        rows = await asyncio.to_thread(_table, body)
        told = await asyncio.to_thread(self._keep_rows, rows)
        return told | await self._kept([(row["prediction_id"] or "").strip() for row in rows])

    async def prediction(self, prediction_id: str) -> dict[str, Any]:
        """A logged prediction, with all feedback.

        Raises:
            Refusal: it is unknown.
        """
        found = await asyncio.to_thread(self._find, prediction_id)
        record = found.record
        return {
            "prediction_id": record.prediction_id,
            "time": _iso(record.time_us),
            "model_version": record.model_version,
            "label": self._name(record.label),
            "confidence": _rounded(record.confidence),
            "probabilities": self._by_name(record.probabilities),
            "statistics": dict(zip(STATISTICS, map(_rounded, record.statistics), strict=True)),
            "image_sha256": record.image_sha256,
            "latency_ms": round(record.latency_ms, 3),
            "client": record.client,
            "feedback": [
                {"true_label": self._name(each.true_label), "source": each.source, "time": _iso(each.time_us)}
                for each in found.feedback
            ],
        }

    def model(self) -> dict[str, Any]:
        """What serves, where it came from, and how good it is."""
        told = self.deployment.model
        return {
            "name": told["name"],
            "version": self._version,
            "class_names": list(self.package.class_names),
            "channels": self.package.channels,
            "size": self.package.size,
            "summary": told.get("summary", ""),
            "metrics": {
                name: {"value": metric.value, "low": metric.low, "high": metric.high}
                for name, metric in self.package.metrics.items()
            },
            "architecture": self.package.architecture.get("name"),
            "data": dict(self.package.data),
            "lineage": dict(self.package.lineage),
            "shadow": None if self.deployment.shadow is None else str(self.deployment.shadow["version"]),
        }

    async def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether predictions can be given and kept, and how the log stands."""
        try:
            backlog = await asyncio.to_thread(self.log.outbox.backlog)
        except LogUnavailable as error:
            return False, {"ready": False, "problem": str(error)}
        return True, {
            "ready": True,
            "model_version": self._version,
            "log": {
                "ships_to": backlog.destination,
                "backlog_rows": backlog.rows,
                "backlog_seconds": round(backlog.age_s, 3),
                "refused_rows": backlog.refused,
                "refused_because": list(backlog.reasons),
                "problem": backlog.problem,
            },
        }

    def gallery_list(self) -> list[dict[str, str]]:
        """Pictures to try the page with."""
        try:
            listed: list[dict[str, str]] = json.loads((self.gallery / "gallery.json").read_bytes())
        except FileNotFoundError:
            return []
        return listed

    def measure(self) -> None:
        """Bring the gauges up to date."""
        with contextlib.suppress(LogUnavailable):
            self.measures.backlog(self.log.outbox.backlog())
        for work in self._background:
            self.measures.background(work)

    async def _fit(self, data: bytes) -> Fitted:
        limit = self.settings.limits.pixels
        if len(data) <= SMALL_BYTES:
            try:
                return self._fitted(data, min(limit, SMALL_PIXELS))
            except BadPicture as error:
                if error.code != "too_large":
                    raise
        return await self._in_pool(self._fitted, data, limit)

    def _fitted(self, data: bytes, max_pixels: int) -> Fitted:
        of = self.package
        return preparation.fit(
            data, size=of.size, channels=of.channels, preparation=of.preparation, max_pixels=max_pixels
        )

    async def _in_pool(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    async def _kept(self, ids: Sequence[str]) -> dict[str, str]:
        """With `acknowledge: remote`, wait until Firestore has these, but not for long: the outbox has them."""
        if self.settings.log.acknowledge != "remote" or self._shipper is None or not ids:
            return {}
        self._shipper.wake()
        deadline = time.monotonic() + self.settings.log.remote_seconds
        while time.monotonic() < deadline:
            await asyncio.sleep(POLL_SECONDS)
            if await asyncio.to_thread(self.log.outbox.is_shipped, ids):
                return {"kept": "firestore"}
        return {"kept": "disk"}

    def _told(self, scored: Scored, fitted: Fitted) -> dict[str, Any]:
        record = scored.record
        label = self.package.class_names[record.label]
        self.measures.predictions.labels(label, self._version).inc()
        return {
            "prediction_id": record.prediction_id,
            "label": label,
            "confidence": _rounded(record.confidence),
            "probabilities": self._by_name(record.probabilities),
            "model": {"name": self.deployment.model["name"], "version": self._version},
            "preprocessing": list(fitted.steps),
        }

    def _explained(self, scored: Scored) -> dict[str, Any]:
        heat = explanation.occlusion(self._predictor, scored.image, scored.record.label)
        return {
            "heat_map": _data_url(explanation.heat_map_png(scored.image, heat)),
            "picture": _data_url(image_store.to_png(scored.image)),
        }

    def _after(self, scored: Sequence[Scored]) -> None:
        for work in self._background:
            work.offer(scored)

    def _label(self, given: str | int) -> int:
        label = self._labels.get(given) if isinstance(given, str) else given
        if label is None or not 0 <= label < len(self._labels):
            message = f"true_label must be one of {', '.join(self._labels)}, got {given!r:.60}"
            raise ApiError(422, "bad_field", message, "send a class by name, or by its number")
        return label

    def _name(self, label: int) -> str:
        # A log may hold what a model of other classes has said.
        return self.package.class_names[label] if label < len(self.package.class_names) else str(label)

    def _by_name(self, probabilities: Sequence[float]) -> dict[str, float]:
        return {self._name(label): _rounded(value) for label, value in enumerate(probabilities)}

    def _find(self, prediction_id: str) -> LoggedPrediction:
        try:
            return self.log.get(prediction_id)
        except UnknownPrediction:
            if self._remote is not None:
                with contextlib.suppress(UnknownPrediction):
                    found: LoggedPrediction = self._remote.get(prediction_id)
                    return found
        raise _unknown(prediction_id)

    def _keep_feedback(self, given: Feedback) -> None:
        try:
            self.log.append_feedback([given])
        except UnknownPrediction:
            self._find(given.prediction_id)  # of another machine, perhaps
            self.log.append_feedback([given], known_elsewhere=True)

    def _keep_rows(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        accepted, errors = 0, []
        for line, row in enumerate(rows, start=2):
            text = (row["true_label"] or "").strip()
            try:
                label = self._label(int(text) if text.isdecimal() else text)
                source = (row.get("source") or "csv").strip()
                self._keep_feedback(
                    Feedback((row["prediction_id"] or "").strip(), label, source, time.time_ns() // 1000)
                )
                accepted += 1
            except (ApiError, ValueError) as error:
                errors.append({"line": line, "message": str(error)})
            except LogUnavailable as error:  # what was kept is said, and what to send again
                _logger.error("%s", error)
                left = len(rows) - (line - 2)
                errors.append({"line": line, "message": "cannot be kept now: send this line and those below it again"})
                return {"accepted": accepted, "refused": len(errors) - 1 + left, "errors": errors[-100:]}
        return {"accepted": accepted, "refused": len(errors), "errors": errors[:100]}

    def _retain(self) -> None:
        days = self.settings.log.retention_days
        assert days is not None
        while True:
            try:
                self.log.prune(days)
            except LogUnavailable as error:
                _logger.warning("old predictions stay: %s", error)
            if self._stop.wait(RETENTION_SECONDS):
                return


def _table(body: bytes) -> list[dict[str, Any]]:
    """Rows of a CSV table.

    Raises:
        Refusal: it is none, or has other columns or too many rows.
    """
    try:
        rows = list(itertools.islice(csv.DictReader(io.StringIO(body.decode("utf-8-sig"))), CSV_ROWS + 1))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ApiError(400, "bad_csv", f"the table cannot be read: {error}", "send CSV in UTF-8") from None
    if not rows or not {"prediction_id", "true_label"} <= set(rows[0]):
        message = "the table must have the columns prediction_id and true_label, and rows"
        raise ApiError(422, "bad_csv", message, "name them in the first line; `source` may be a third")
    if len(rows) > CSV_ROWS:
        message, remedy = f"the table has more than {CSV_ROWS:,} rows", f"send at most {CSV_ROWS:,} rows at once"
        raise ApiError(413, "too_large", message, remedy)
    return rows


def _shipping(log: PredictionLog, home: Home, settings: ServiceConfig) -> tuple[Any, Any]:
    """Firestore and what ships to it, where the environment names one."""
    if home.firestore is None:
        if settings.log.acknowledge == "remote":
            raise ValueError("serve.log.acknowledge=remote needs FASHION_FIRESTORE=project[/database] to be set")
        return None, None
    from fashion.predictions.firestore import open_firestore
    from fashion.predictions.shipper import Shipper

    remote = open_firestore(home.firestore, expire_days=settings.log.retention_days)
    shipper = Shipper(log, remote)
    shipper.start()
    return remote, shipper


def _background(desk: Worker, home: Home, shadow: Path | None) -> list[background.Background]:
    works = []
    if desk.settings.log.images:
        works.append(background.keeper(open_store(home.images)))
    if shadow is not None:
        assert desk.deployment.shadow is not None
        version = str(desk.deployment.shadow["version"])
        try:
            works.append(background.shadow(Predictor(package.read(shadow)), desk.log, model_version=version))
        except package.DamagedPackage as error:  # what only looks on must not keep the service from answering
            _logger.error("the shadow, version %s, scores nothing: %s", version, error)
    return works


def _blank(of: Package, count: int) -> Any:
    shape = (count, of.size, of.size) + ((of.channels,) if of.channels > 1 else ())
    return np.zeros(shape, np.uint8)


def _unknown(prediction_id: str) -> ApiError:
    remedy = "send the prediction_id of an answer; old predictions are dropped after a while"
    return ApiError(404, "unknown_prediction", f"there is no prediction {prediction_id[:60]!r}", remedy)


def _rounded(value: float) -> float:
    return round(value, 6)


def _iso(time_us: int) -> str:
    import datetime

    moment = datetime.datetime.fromtimestamp(time_us // 1_000_000, datetime.UTC)
    return moment.replace(microsecond=time_us % 1_000_000).isoformat()


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
