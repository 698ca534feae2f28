"""One worker of the service: its model, its log and its threads. Knows pictures and API errors, not requests."""

import asyncio
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bentos.classifier import background
from bentos.classifier.batcher import Batcher, CanaryAnswering, Scored
from bentos.classifier.canary_state import CanaryReader
from bentos.classifier.canary_watch import CanaryWatch
from bentos.classifier.checks import Checks
from bentos.classifier.decoder import DECODERS, Decoder
from bentos.classifier.deployment import Deployment, read_gallery
from bentos.classifier.latest_report import LatestReport
from bentos.classifier.metrics import ServiceMetrics
from bentos.classifier.recent import RecentReader
from bentos.classifier.records import DIGITS, Records
from bentos.classifier.review import Review
from bentos.classifier.schemas import (
    BatchAnswer,
    GalleryPicture,
    LogState,
    ModelInfo,
    NotReady,
    PredictionAnswer,
    Ready,
    data_url,
)
from bentos.classifier.served import Served, load_canary, read_verified
from bentos.classifier.shipping import Shipping
from bentos.classifier.site import site_of
from bentos.classifier.traffic import TrafficReader
from bentos.web import responses
from bentos.web.auth import Keys, Scope, is_loopback
from bentos.web.bodies import BodyLimits
from bentos.web.memory import Memory
from bentos.web.rate_limit import RateLimit
from bentos.web.request_metrics import Identity
from bentos.web.responses import ErrorAnswer
from bentos.web.telemetry import Telemetry
from bentos.web.telemetry_config import read_config
from bentos.web.uploads import Part
from fashion.config.serve import WORKER_BYTES, ServiceConfig
from fashion.drift import retention
from fashion.home import Home
from fashion.images import image_store
from fashion.images.errors import BadPicture
from fashion.images.malloc import return_freed_memory
from fashion.images.preparation import PreparedImage
from fashion.model import explanation
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import LogUnavailable
from fashion.storage.address import open_store
from fashion.storage.blobs import StoreUnavailable

PRUNE_SECONDS = 3600.0
GAUGE_SECONDS = 5.0
"""Where a scrape reaches one of several workers, the others bring their gauges up to date this often."""

_logger = logging.getLogger(__name__)


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
        canary: Path | None = None,
        folder: Path,
        identity: Identity,
    ) -> None:
        """Load the model, open the log, start the threads.

        Args:
            deployment: which versions to serve, and how.
            home: where logs, pictures and reports are.
            environment: holds the API keys, and OpenTelemetry's variables.
            model: package of the served version.
            shadow: package of the version that scores without answering.
            canary: package of the version that answers a share of the clients.
            folder: holds `page/`, `gallery/` and the known pictures.
            identity: of the bento, for metrics and traces.

        Raises:
            fashion.model.package.DamagedPackage: the model is not what was registered.
            fashion.predictions.record.LogUnavailable: the log cannot be opened.
            ValueError: answers must wait for the shared log, and FASHION_LOG is not set.
        """
        return_freed_memory()
        self.settings, self.deployment = deployment.settings, deployment
        self.package: Package = read_verified(model, deployment.model)
        self.page, self.gallery = folder / "page", folder / "gallery"
        stores = (open_store(address, timeout_s=background.STORE_SECONDS) for address in (home.reports, home.images))
        self.reports, self._images = stores
        local: dict[Scope, str] = {"feedback": "serve.feedback=open"} if self.settings.feedback == "loopback" else {}
        self.keys = Keys(environment, closed=_closed(self.settings, environment), local=local)
        self.has_review = self.settings.log.images and not self.keys.is_closed("review")
        self.site = site_of(self.package, has_review=self.has_review)
        limits = self.settings.limits
        limited = home.root / "serving"
        self.rate = RateLimit(limits.requests_per_minute, limited / "request-limits")
        self.feedback_rate = RateLimit(limits.feedback_per_minute, limited / "feedback-limits", of="labels")
        # Bodies get an eighth: a picture takes more once it is decoded.
        uploads = limits.memory_bytes - WORKER_BYTES
        bodies = max(uploads // 8, limits.body_bytes)
        self.body_limits = BodyLimits(limits.body_bytes, limits.body_seconds, Memory(bodies))
        self._decoder = Decoder(self.package, max_pixels=limits.pixels, memory=Memory(uploads - bodies))
        self.metrics = ServiceMetrics(identity)
        self.log = PredictionLog(home.predictions)
        self._served = Served.load(self.package, deployment.model["name"], deployment.model["version"], self.settings)
        self._model, self.unlike = self._served.version, self._served.unlike
        self.canary = load_canary(deployment, canary, self.package)
        self._shipping = Shipping(self.log, home, self.settings.log)
        self.recent = RecentReader(self.log, self._shipping.remote)
        served = self._served.model
        answering_here = [self._served, *([] if self.canary is None else [self.canary.served])]
        unlike = {each.model: each.unlike for each in answering_here}
        self.records = Records(self.log, self._shipping, served, self.package.class_names, unlike)
        self._background = background.start(deployment, self.log, home, shadow)
        self.traffic = TrafficReader(self.log, self.metrics.requests, model=served, unlike=self.unlike)
        self.review = Review(
            self.log,
            self._shipping.remote,
            self._images,
            model=served,
            class_names=self.package.class_names,
            unlike=self.unlike,
            records=self.records,
            checks=Checks(folder, self.settings.review_checks),
            stores_pictures=self.settings.log.images,
        )
        self.canary_state: CanaryReader | None = None
        answering: CanaryAnswering | None = None
        if self.canary is not None:
            watch = CanaryWatch(self.log, self._shipping.remote, self.canary.experiment)
            self.canary_state = CanaryReader(self.log, self._shipping.remote, self._served, self.canary, watch)
            answering = self.canary.answering(watch)
        self._batcher = Batcher(
            self._served.predictor,
            self.log,
            model=served,
            typicality=self.unlike.typicality,
            canary=answering,
            after=self._offer_to_background,
        )
        self._closing = threading.Event()
        self._show_versions()
        self._latest_report = LatestReport(
            self.reports, self.metrics.set_report, model_name=self._model.name, digest=self._model.digest
        )
        self._latest_report.look()
        several = self.settings.workers > 1
        self._telemetry = Telemetry(
            read_config(environment),
            identity,
            self.metrics.registry,
            several_workers=several,
            update=self.update_gauges,
        )
        self.tracing = self._telemetry.tracing
        if several:
            threading.Thread(target=self._refresh_gauges, name="gauges", daemon=True).start()
        if self.settings.log.retention_days is not None:
            threading.Thread(
                target=self._prune, args=[self.settings.log.retention_days], name="retention", daemon=True
            ).start()

    def close(self) -> None:
        """Finish what was accepted, ship what can be shipped, and close the log."""
        self._closing.set()
        if self.canary_state is not None:
            self.canary_state.watch.close()
        self._batcher.close()
        self._decoder.close()
        for work in self._background:
            work.close(self.settings.log.drain_seconds)
        self._shipping.close()
        self._telemetry.close()
        self.traffic.close()
        self.log.close()

    async def predict(self, data: bytes, *, explain: bool, client: str | None, started: float) -> PredictionAnswer:
        """Predict one picture, and log it.

        Args:
            data: the bytes of the picture's file.
            explain: add a heat map.
            client: the caller's own tag, for the log.
            started: of `time.perf_counter`, when the request came.

        Raises:
            ApiError: the picture cannot be read, or is unlike what the model has learnt and refused for that.
            fashion.predictions.record.LogUnavailable: the prediction cannot be logged.
        """
        begun_ns = time.time_ns()
        try:
            prepared = await self._decoder.decode(data)
        except BadPicture as error:
            raise responses.picture_error(error) from None
        decoded_ns = time.time_ns()
        (scored,) = await self._batcher.predict([prepared.image], client=client, started=started)
        stored_in = await self._ship([scored])
        self._trace([scored], begun_ns, decoded_ns)
        answer = self._answer(scored, prepared, stored_in)
        if refusal := self.unlike.refusal(answer):
            raise refusal
        return await self._decoder.run(self._explain, answer, scored) if explain else answer

    async def predict_batch(self, files: Sequence[Part], *, client: str | None, started: float) -> BatchAnswer:
        """Predict pictures; each has its prediction or its error, in the order of the files.

        Args:
            files: the pictures' files.
            client: the caller's own tag, for the log.
            started: of `time.perf_counter`, when the request came.

        Raises:
            fashion.predictions.record.LogUnavailable: the predictions cannot be logged.
        """
        begun_ns = time.time_ns()
        at_once = asyncio.Semaphore(DECODERS)  # more would wait for each other's memory, and be sent away

        async def prepare(part: Part) -> PreparedImage:
            async with at_once:
                return await self._decoder.decode(part.data)

        outcomes = await asyncio.gather(*(prepare(part) for part in files), return_exceptions=True)
        decoded_ns = time.time_ns()
        images = [prepared.image for prepared in outcomes if isinstance(prepared, PreparedImage)]
        scored = await self._batcher.predict(images, client=client, started=started) if images else []
        stored_in = await self._ship(scored)
        self._trace(scored, begun_ns, decoded_ns)
        results: list[PredictionAnswer | ErrorAnswer] = []
        remaining = iter(scored)
        for part, prepared in zip(files, outcomes, strict=True):
            if isinstance(prepared, PreparedImage):
                answer = self._answer(next(remaining), prepared, None, part.filename)
                refusal = self.unlike.refusal(answer)
                results.append(responses.error_answer(refusal, part.filename) if refusal else answer)
            elif isinstance(prepared, BadPicture):
                results.append(responses.error_answer(responses.picture_error(prepared), part.filename))
            else:
                raise prepared
        refused = sum(isinstance(each, ErrorAnswer) for each in results)
        return BatchAnswer(tuple(results), len(results) - refused, refused, stored_in)

    def model_info(self) -> ModelInfo:
        """Return what is served, where it came from, and how good it is."""
        shadow = self.deployment.shadow
        canary = self.canary if self.canary_state is not None and self.canary_state.watch.answers else None
        return ModelInfo(
            name=self._model.name,
            version=self._model.version,
            digest=self._model.digest,
            class_names=tuple(self.package.class_names),
            channels=self.package.channels,
            size=self.package.size,
            summary=self.deployment.model.get("summary", ""),
            metrics=dict(self.package.metrics),
            architecture=self.package.architecture.get("name"),
            data=dict(self.package.data),
            lineage=dict(self.package.lineage),
            shadow=None if shadow is None else str(shadow["version"]),
            canary=None if canary is None else canary.served.version.version,
            canary_share=None if canary is None else canary.experiment.share,
        )

    async def readiness(self) -> Ready | NotReady:
        """Tell whether predictions can be logged, and what of the log is not shipped yet."""
        try:
            backlog = await asyncio.to_thread(self.log.outbox.backlog)
        except LogUnavailable as error:
            return NotReady(False, str(error))
        log = LogState(
            ships_to=backlog.destination,
            backlog_rows=backlog.rows,
            backlog_seconds=round(backlog.age_s, 3),
            refused_rows=backlog.refused,
            refused_because=tuple(backlog.reasons),
            problem=backlog.problem,
        )
        return Ready(True, self._model.version, log)

    def gallery_pictures(self) -> tuple[GalleryPicture, ...]:
        """List test pictures to try the page with."""
        return read_gallery(self.gallery)

    def update_gauges(self) -> None:
        """Set the gauges of the metrics to what holds now."""
        with contextlib.suppress(LogUnavailable):
            self.metrics.set_backlog(self.log.outbox.backlog())
        for work in self._background:
            self.metrics.set_background(work)
        if self.canary is not None and self.canary_state is not None:
            self.metrics.set_canary(self.canary.served.version.version, self.canary_state.watch.ending)
        self._latest_report.look()
        self.metrics.set_drift_age(time.time())

    def _answer(
        self, scored: Scored, prepared: PreparedImage, stored_in: str | None, filename: str | None = None
    ) -> PredictionAnswer:
        record, served = scored.record, self._served_by(scored)
        label = self.package.class_names[record.label]
        typical = served.unlike.is_typical(scored.typicality)
        self.metrics.count_prediction(label, record.model_version, typical=typical)
        return PredictionAnswer(
            prediction_id=record.prediction_id,
            label=label,
            confidence=round(record.confidence, DIGITS),
            probabilities=self.records.by_name(record.probabilities),
            model=served.version,
            preprocessing=prepared.steps,
            typical=typical,
            typicality=None if scored.typicality is None else round(scored.typicality, DIGITS),
            prediction_set=served.covering.prediction_set(record),
            stored_in=stored_in,
            filename=filename,
        )

    def _served_by(self, scored: Scored) -> Served:
        """The version that has answered."""
        if self.canary is not None and scored.record.model == self.canary.served.model:
            return self.canary.served
        return self._served

    def _explain(self, answer: PredictionAnswer, scored: Scored) -> PredictionAnswer:
        heat = explanation.occlusion(self._served_by(scored).predictor, scored.image, scored.record.label)
        heat_map = explanation.heat_map_png(scored.image, heat)
        picture = image_store.to_png(scored.image)
        return dataclasses.replace(answer, heat_map=data_url(heat_map), picture=data_url(picture))

    async def _ship(self, scored: Sequence[Scored]) -> str | None:
        """Wait until the log's destination has predictions, where answers must; the wait is part of the trace."""
        begun_ns = time.time_ns()
        stored_in = await self._shipping.stored_in([each.record.prediction_id for each in scored])
        if stored_in is not None:
            self.tracing.span("ship", begun_ns, time.time_ns(), {"fashion.stored_in": stored_in})
        return stored_in

    def _trace(self, scored: Sequence[Scored], begun_ns: int, decoded_ns: int) -> None:
        """Add the way of these pictures to the request's trace. All of one request are in one batch."""
        if not self.tracing.active:
            return
        self.tracing.span("decode", begun_ns, decoded_ns)
        if not scored:
            return
        batch, ids = scored[0].batch, [each.record.prediction_id for each in scored]
        self.tracing.span("wait", decoded_ns, batch.taken_ns)
        self.tracing.span("network", batch.taken_ns, batch.predicted_ns, {"fashion.batch_size": batch.size})
        self.tracing.span("log", batch.predicted_ns, batch.logged_ns, {"fashion.batch_size": batch.size})
        self.tracing.annotate({"fashion.prediction_ids": ids, "fashion.model_version": scored[0].record.model_version})

    def _show_versions(self) -> None:
        self.metrics.set_model(self._model.name, self._model.version, "champion")
        if self.deployment.shadow is not None:
            self.metrics.set_model(self._model.name, str(self.deployment.shadow["version"]), "shadow")
        if self.canary is not None:
            self.metrics.set_model(self._model.name, self.canary.served.version.version, "canary")

    def _refresh_gauges(self) -> None:
        while not self._closing.wait(GAUGE_SECONDS):
            self.update_gauges()

    def _offer_to_background(self, scored: Sequence[Scored]) -> None:
        self.metrics.requests.batch("predict", len(scored))
        for work in self._background:
            work.offer(scored)

    def _prune(self, days: float) -> None:
        while True:
            try:
                retention.prune(
                    self.log,
                    days,
                    images=self._images,
                    report_store=self.reports,
                    shared=self._shipping.remote,
                    clock=time.time_ns,
                )
            except (LogUnavailable, StoreUnavailable) as error:
                _logger.warning("old predictions stay: %s", error)
            if self._closing.wait(PRUNE_SECONDS):
                return


def _closed(settings: ServiceConfig, environment: Mapping[str, str]) -> dict[Scope, str]:
    """Scopes that are closed where they have no keys, and the setting that opens them."""
    closed: dict[Scope, str] = {} if settings.review == "open" else {"review": "serve.review=open"}
    if settings.feedback == "loopback" and not is_loopback(environment.get("BENTOML_HOST", "127.0.0.1")):
        closed["feedback"] = "serve.feedback=open"
    return closed
