"""The service's pages and endpoints, in front of BentoML's own application.

BentoML's request path (metrics, tracing, access log, timeout, argument parsing) costs more than the network for a
picture this small. So the endpoints are answered here, and only probes, metrics and the schema for BentoML's Python
client are passed on to BentoML.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.classifier import monitoring, openapi
from bentos.classifier.batcher import Closed
from bentos.classifier.schemas import (
    FeedbackRequest,
    Gallery,
    Ready,
    Reports,
    ReviewAnswer,
    ReviewedPrediction,
    ReviewRequest,
)
from bentos.classifier.site import render, words_of
from bentos.classifier.traffic import span_of
from bentos.classifier.worker import Worker
from bentos.web import bodies, docs, html, responses, uploads
from bentos.web.auth import Scope as KeyScope
from bentos.web.responses import ApiError, json_response
from fashion.predictions.record import LogUnavailable
from fashion.storage.blobs import StoreUnavailable

BENTOML_PATHS = frozenset({"/livez", "/healthz", "/metrics", "/schema.json"})
"""Paths that BentoML answers."""
SCOPES: dict[str, KeyScope] = {
    "/predict": "predict",
    "/predict/batch": "predict",
    "/predictions": "predict",
    "/feedback": "feedback",
    "/monitoring": "monitoring",
    "/review": "review",
    "/metrics": "monitoring",
}
"""Scope of the key that a path needs; paths that are not here need none."""
SHARED_FILES = frozenset(path.name for path in html.PAGE.iterdir())
"""Files below `/page/` that all services share."""
CLIENT_BYTES = 200
"""Longest X-Client header."""
PROBES = frozenset({"/readyz"})
"""Paths that the platform asks, answered here."""
CSV_TYPES = frozenset({"text/csv", "application/csv", "application/vnd.ms-excel"})
"""Types of a table of feedback: Windows calls CSV the last one where Excel is installed."""
OTHER = "other"
"""Endpoint in the metrics of a path that there is not."""
CLIENT_CLOSED_REQUEST = 499
"""Status in the metrics of a request whose client has gone; nginx counts such requests under the same number."""

T = TypeVar("T")

_logger = logging.getLogger(__name__)


class App:
    """An ASGI application around BentoML's."""

    def __init__(self, bento: ASGIApp, worker: Callable[[], Worker]) -> None:
        """
        Args:
            bento: BentoML's application.
            worker: returns the worker, which BentoML makes after this.
        """
        self.bento, self._worker = bento, worker
        self._active = 0
        self._router = Router(
            [
                Route("/predict", self._predict, methods=["POST"]),
                Route("/predict/batch", self._predict_batch, methods=["POST"]),
                Route("/feedback", self._feedback, methods=["POST"]),
                Route("/predictions/{prediction_id}", self._prediction, methods=["GET"]),
                Route("/model", self._model, methods=["GET"]),
                Route("/readyz", self._readyz, methods=["GET"]),
                Route("/", self._index, methods=["GET"]),
                Route("/page/{name}", self._page, methods=["GET"]),
                Route("/favicon.ico", self._icon, methods=["GET"]),
                Route("/gallery", self._gallery, methods=["GET"]),
                Route("/gallery/{name}", self._gallery_picture, methods=["GET"]),
                Route("/review", self._review, methods=["GET"]),
                Route("/review/queue", self._review_queue, methods=["GET"]),
                Route("/review/label", self._review_label, methods=["POST"]),
                Route("/review/undo", self._review_undo, methods=["POST"]),
                Route("/review/skip", self._review_skip, methods=["POST"]),
                Route("/monitoring", self._monitoring, methods=["GET"]),
                Route("/monitoring/traffic", self._traffic, methods=["GET"]),
                Route("/monitoring/reports", self._reports, methods=["GET"]),
                Route("/monitoring/reports/{report_id}", self._report, methods=["GET"]),
                Route("/openapi.json", self._openapi, methods=["GET"]),
                Route("/docs", self._docs, methods=["GET"]),
            ],
            redirect_slashes=False,
            default=_not_found,
        )
        self._exact = {("POST", "/predict"): self._predict}
        paths = [route.path for route in self._router.routes if isinstance(route, Route)]
        self._paths = {path for path in paths if "{" not in path} | BENTOML_PATHS
        self._prefixes = {path.partition("{")[0]: path for path in paths if "{" in path}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on to BentoML."""
        if scope["type"] != "http":
            await self.bento(scope, receive, send)
            return
        started = time.perf_counter()
        worker, path = self._worker(), scope["path"]
        endpoint = self._endpoint(path)
        metrics = span = None
        if path not in BENTOML_PATHS:  # BentoML counts what it answers
            metrics = worker.metrics.requests
            metrics.start(endpoint, probe=path in PROBES)
            if path not in PROBES:
                span = worker.tracing.start(scope["method"], endpoint, path, scope["headers"])
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] += [pair for pair in responses.SECURITY_HEADERS if pair[0] not in present]
            await send(message)

        scope["started"] = started
        scope["app"] = self  # with an app in scope, Starlette raises its 405 instead of answering as plain text
        try:
            await self._check_early(worker, scope, receive, path)
            await self._dispatch(worker, scope, receive, send_with_headers)
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
        except Exception as error:
            await responses.error_response(_as_api_error(error))(scope, receive, send_with_headers)
        finally:
            bodies.release(scope, worker.body_limits.memory)
            if span is not None:
                span.finish(status)
            if metrics is not None:
                metrics.finish(endpoint, status, time.perf_counter() - started)

    def _endpoint(self, path: str) -> str:
        """Name the endpoint of a path, for the metrics: never by a path that a client can choose."""
        if path in self._paths:
            return path
        folder, slash, name = path.rpartition("/")
        return self._prefixes.get(folder + slash, OTHER) if name else OTHER

    async def _dispatch(self, worker: Worker, scope: Scope, receive: Receive, send: Send) -> None:
        self._active += 1
        try:
            if scope["path"] == "/metrics":
                await asyncio.to_thread(worker.update_gauges)
            if endpoint := self._exact.get((scope["method"], scope["path"])):
                response = await endpoint(Request(scope, receive, send))
                await response(scope, receive, send)
                return
            application = self.bento if scope["path"] in BENTOML_PATHS else self._router
            await application(scope, receive, send)
        finally:
            self._active -= 1

    async def _check_early(self, worker: Worker, scope: Scope, receive: Receive, path: str) -> None:
        try:
            self._check(worker, scope, path)
        except ApiError as error:
            if Headers(scope=scope).get("expect", "").lower() == "100-continue":
                error.headers["connection"] = "close"  # the client waits for a word before it sends: no body comes
            if "connection" not in error.headers:
                limits = worker.settings.limits
                await bodies.discard_body(receive, limits.body_bytes, limits.body_seconds)
            raise

    def _check(self, worker: Worker, scope: Scope, path: str) -> None:
        """Check key, request limit, concurrency and length before anything of the body is read."""
        key_scope = SCOPES.get(path) or SCOPES.get("/" + path.removeprefix("/").partition("/")[0])
        if key_scope is None:
            return
        headers = Headers(scope=scope)
        key = worker.keys.check(key_scope, headers, scope)
        if path in BENTOML_PATHS:
            return
        client = key or (scope.get("client") or ("",))[0]
        scope["limited_client"] = client
        worker.rate.take(client)
        if scope["method"] != "POST":
            return
        if key_scope == "feedback":
            worker.feedback_rate.take(client)
        limits = worker.settings.limits
        if self._active >= limits.concurrency:
            message = f"{self._active} requests are under way"
            raise ApiError(503, "overloaded", message, "try again in a second", {"retry-after": "1"})
        bodies.check_length(headers.get("content-length"), limits.body_bytes)

    async def _read_body(self, request: Request) -> bytes:
        return await bodies.read_body(request, self._worker().body_limits)

    async def _predict(self, request: Request) -> Response:
        headers = request.headers
        client = _client_tag(headers)
        upload = uploads.read_upload(await self._read_body(request), headers.get("content-type", ""))
        explain = upload.explain
        if "explain" in request.query_params:
            explain = uploads.as_bool("explain", request.query_params["explain"])
        started: float = request.scope["started"]
        worker = self._worker()
        return json_response(await worker.predict(upload.data, explain=explain, client=client, started=started))

    async def _predict_batch(self, request: Request) -> Response:
        worker = self._worker()
        client = _client_tag(request.headers)
        content_type = request.headers.get("content-type", "")
        files = uploads.read_files(await self._read_body(request), content_type, limit=worker.settings.limits.files)
        worker.rate.take(request.scope["limited_client"], len(files), counted=1)
        started: float = request.scope["started"]
        return json_response(await worker.predict_batch(files, client=client, started=started))

    async def _feedback(self, request: Request) -> Response:
        worker = self._worker()

        def count(rows: int) -> None:
            for limit in (worker.rate, worker.feedback_rate):
                limit.take(request.scope["limited_client"], rows, counted=1)

        body = await self._read_body(request)
        content_type = request.headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "multipart/form-data":
            (table,) = uploads.read_files(body, content_type, limit=1)
            return json_response(await worker.records.add_feedback_table(table.data, count))
        if kind in CSV_TYPES:
            return json_response(await worker.records.add_feedback_table(body, count))
        if kind != "application/json":
            raise ApiError(
                415,
                "unsupported_content_type",
                f"feedback of type {kind or '(none)'} is not read",
                "send application/json, or text/csv with the columns prediction_id and true_label, or a form with it",
            )
        content = uploads.read_json(body, FeedbackRequest)
        return json_response(await worker.records.add_feedback(content), 201)

    async def _prediction(self, request: Request) -> Response:
        return json_response(await self._worker().records.read(request.path_params["prediction_id"]))

    async def _model(self, request: Request) -> Response:
        return json_response(self._worker().model_info())

    async def _readyz(self, request: Request) -> Response:
        readiness = await self._worker().readiness()
        if isinstance(readiness, Ready):
            return json_response(readiness)
        return json_response(readiness, 503, {"retry-after": "5"})

    async def _index(self, request: Request) -> Response:
        return self._rendered("index.html")

    async def _page(self, request: Request) -> Response:
        name = request.path_params["name"]
        return _file(html.PAGE if name in SHARED_FILES else self._worker().page, name)

    async def _icon(self, request: Request) -> Response:
        return _file(self._worker().page, "icon.svg")

    async def _gallery(self, request: Request) -> Response:
        return json_response(Gallery(self._worker().gallery_pictures()))

    async def _gallery_picture(self, request: Request) -> Response:
        return _file(self._worker().gallery, request.path_params["name"])

    async def _review(self, request: Request) -> Response:
        return self._rendered("review.html")

    def _rendered(self, name: str) -> Response:
        worker = self._worker()
        page = render(worker.page / name, words_of(worker.package), html.links(worker.site))
        return HTMLResponse(page, headers={"cache-control": "no-cache"})

    async def _review_queue(self, request: Request) -> Response:
        shown, skipped = (request.query_params.get(name, "").split(",") for name in ("shown", "skipped"))
        return json_response(await asyncio.to_thread(self._worker().review.queue, shown, skipped))

    async def _review_label(self, request: Request) -> Response:
        said = await self._read_json(request, ReviewRequest)
        predicted = await asyncio.to_thread(self._worker().review.label, said.prediction_id, said.true_label)
        return json_response(ReviewAnswer(said.prediction_id, said.true_label, predicted), 201)

    async def _review_undo(self, request: Request) -> Response:
        said = await self._read_json(request, ReviewedPrediction)
        await asyncio.to_thread(self._worker().review.undo, said.prediction_id)
        return Response(status_code=204)

    async def _review_skip(self, request: Request) -> Response:
        said = await self._read_json(request, ReviewedPrediction)
        await asyncio.to_thread(self._worker().review.skip, said.prediction_id)
        return Response(status_code=204)

    async def _read_json(self, request: Request, kind: type[T]) -> T:
        """Read a body that only a page of this service can send: a form of another site has another type.

        Raises:
            ApiError: it is of another type, or not what is expected.
        """
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            message = f"a body of type {content_type or '(none)'} is not read"
            raise ApiError(415, "unsupported_content_type", message, "send application/json")
        return uploads.read_json(await self._read_body(request), kind)

    async def _monitoring(self, request: Request) -> Response:
        span = span_of(request.query_params)
        page = await asyncio.to_thread(monitoring.page, self._worker(), span)
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    async def _traffic(self, request: Request) -> Response:
        span = span_of(request.query_params)
        return json_response(await asyncio.to_thread(monitoring.traffic_answer, self._worker(), span))

    async def _reports(self, request: Request) -> Response:
        return json_response(Reports(await asyncio.to_thread(monitoring.latest_reports, self._worker().reports)))

    async def _report(self, request: Request) -> Response:
        return await asyncio.to_thread(
            monitoring.report_response, self._worker().reports, request.path_params["report_id"]
        )

    async def _openapi(self, request: Request) -> Response:
        return json_response(self._document())

    async def _docs(self, request: Request) -> Response:
        return HTMLResponse(docs.page(self._worker().site, self._document(), str(request.base_url).rstrip("/")))

    def _document(self) -> dict[str, Any]:
        worker = self._worker()
        pictures = worker.gallery_pictures()
        url = pictures[0].url if pictures else None
        name = worker.model_info().name
        return openapi.document(worker.package, picture_url=url, model_name=name, has_review=worker.has_review)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    message = f"there is no {scope['method']} {scope['path'][:100]}"
    raise ApiError(404, "not_found", message, "GET /docs lists what there is")


def _client_tag(headers: Headers) -> str | None:
    """Read the caller's own tag, which is logged.

    Raises:
        ApiError: the tag is too long or cannot be printed.
    """
    tag = headers.get("x-client")
    if tag is None or tag == "":
        return None
    if len(tag.encode()) > CLIENT_BYTES or not tag.isprintable():
        remedy = f"send at most {CLIENT_BYTES} bytes that can be printed, or leave it out"
        raise ApiError(422, "bad_field", "the header X-Client is too long or cannot be printed", remedy)
    return tag


def _file(folder: Path, name: str) -> Response:
    try:
        exists = "/" not in name and not name.startswith(".") and (folder / name).is_file()
    except OSError:  # the name is longer than the file system allows
        exists = False
    if not exists:
        raise ApiError(404, "not_found", f"there is no file {name[:100]}", "GET /docs lists what there is")
    return FileResponse(folder / name, headers={"cache-control": "no-cache"})


def _as_api_error(error: Exception) -> ApiError:
    """Turn any error into the one to answer with; what is not the client's fault is logged."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        remedy = f"use {allowed}; GET /docs lists what there is"
        return ApiError(405, "method_not_allowed", "the path has no such method", remedy, {"allow": allowed})
    if isinstance(error, (LogUnavailable, StoreUnavailable, Closed)):
        _logger.error("%s: %s", type(error).__name__, error)
        return ApiError(
            503,
            "unavailable",
            "predictions cannot be logged or looked up now, and none is answered that is not logged",
            "try again in a few seconds; the operator finds the reason in the log and in /readyz",
            {"retry-after": "5"},
        )
    _logger.error("unexpected", exc_info=error)
    return ApiError(500, "internal", "something unexpected went wrong", "try again; the operator finds it in the log")
