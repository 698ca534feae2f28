"""The service's pages and endpoints, in front of BentoML's own application.

BentoML's request path (metrics, tracing, access log, timeout, argument parsing) costs more than the network for a
picture this small. So the endpoints stand before it, and only what is not theirs goes on to BentoML: probes, metrics
and the schema that its Python client reads.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bentos.classifier import monitoring, openapi
from bentos.classifier.batcher import Closed
from bentos.classifier.worker import Worker
from bentos.web import responses, uploads
from bentos.web.auth import Scope as KeyScope
from bentos.web.responses import ApiError, answer
from fashion.predictions.record import LogUnavailable
from fashion.storage.blobs import StoreUnavailable

PASSED_ON = frozenset({"/livez", "/healthz", "/metrics", "/schema.json"})
"""What BentoML answers."""
SCOPES: dict[str, KeyScope] = {
    "/predict": "predict",
    "/predict/batch": "predict",
    "/predictions": "predict",
    "/feedback": "feedback",
    "/monitoring": "monitoring",
    "/metrics": "monitoring",
}
CLIENT_BYTES = 200
GONE = 499
"""What a request is counted as whose client has gone: no fault of ours. nginx's number."""
PATIENCE = 10
"""Times the largest body that are read, and dropped, of one that is too large."""

_logger = logging.getLogger(__name__)

Handler = Callable[[Request], Awaitable[Response]]


class App:
    """An ASGI application around BentoML's. `desk` gives the one that serves, once BentoML has made it."""

    def __init__(self, bento: ASGIApp, desk: Callable[[], Worker]) -> None:
        self.bento, self._desk = bento, desk
        self._under_way = 0
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
                Route("/monitoring", self._monitoring, methods=["GET"]),
                Route("/monitoring/reports", self._reports, methods=["GET"]),
                Route("/monitoring/reports/{report_id}", self._report, methods=["GET"]),
                Route("/openapi.json", self._openapi, methods=["GET"]),
                Route("/docs", self._docs, methods=["GET"]),
            ],
            redirect_slashes=False,
            default=_nothing_here,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self.bento(scope, receive, send)
            return
        started = time.perf_counter()
        desk, path = self._desk(), scope["path"]
        status = 500

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] += [pair for pair in responses.SECURITY_HEADERS if pair[0] not in present]
            await send(message)

        scope["started"] = started
        scope["app"] = self  # so that Starlette raises what it refuses, instead of answering in its own shape
        try:
            try:
                self._admit(desk, scope, path)
            except ApiError as early:
                if "connection" not in early.headers:
                    limits = desk.settings.limits
                    await _discard(receive, PATIENCE * limits.body_bytes, limits.body_seconds)
                raise
            self._under_way += 1
            try:
                if path == "/metrics":
                    await asyncio.to_thread(desk.measure)
                application = self.bento if path in PASSED_ON else self._router
                await application(scope, receive, send_safely)
            finally:
                self._under_way -= 1
        except ClientDisconnect:
            status = GONE
        except Exception as error:
            refusal = _refusal(error)
            await responses.refuse(refusal)(scope, receive, send_safely)
        finally:
            known = path if path in PASSED_ON else scope["route"].path if "route" in scope else "other"
            desk.measures.requests.labels(known, status).inc()
            desk.measures.seconds.labels(known).observe(time.perf_counter() - started)

    def _admit(self, desk: Worker, scope: Scope, path: str) -> None:
        """Keys, rate and concurrency, before anything of the body is read."""
        key_scope = SCOPES.get(path) or SCOPES.get("/" + path.removeprefix("/").partition("/")[0])
        if key_scope is None:
            return
        headers = Headers(scope=scope)
        key = desk.keys.check(key_scope, headers)
        if path in PASSED_ON:
            return
        asker = key or (scope.get("client") or ("",))[0]
        scope["asker"] = asker
        desk.rate.take(asker)
        if scope["method"] != "POST":
            return
        limits = desk.settings.limits
        if self._under_way >= limits.concurrency:
            raise ApiError(
                503,
                "overloaded",
                f"{self._under_way} requests are under way",
                "try again in a second",
                {"retry-after": "1"},
            )
        declared = headers.get("content-length")
        if declared is not None and declared.isdigit() and int(declared) > limits.body_bytes:
            raise _too_large(limits.body_bytes, cut=int(declared) > PATIENCE * limits.body_bytes)

    async def _predict(self, request: Request) -> Response:
        desk = self._desk()
        headers = request.headers
        client = _client(headers)
        body = await _body(request, desk.settings.limits.body_bytes, desk.settings.limits.body_seconds)
        upload = uploads.read_upload(body, headers.get("content-type", ""))
        explain = upload.explain
        if "explain" in request.query_params:
            explain = uploads.as_bool("explain", request.query_params["explain"])
        started: float = request.scope["started"]
        return answer(await desk.predict(upload.data, explain=explain, client=client, started=started))

    async def _predict_batch(self, request: Request) -> Response:
        desk = self._desk()
        limits = desk.settings.limits
        client = _client(request.headers)
        body = await _body(request, limits.body_bytes, limits.body_seconds)
        files = uploads.read_files(body, request.headers.get("content-type", ""), limit=limits.files)
        desk.rate.take(request.scope["asker"], len(files) - 1)  # the request itself was counted as one
        started: float = request.scope["started"]
        return answer(await desk.predict_batch(files, client=client, started=started))

    async def _feedback(self, request: Request) -> Response:
        desk = self._desk()
        limits = desk.settings.limits
        body = await _body(request, limits.body_bytes, limits.body_seconds)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/csv":
            return answer(await desk.feedback_csv(body))
        if kind != "application/json":
            raise ApiError(
                415,
                "unsupported_content_type",
                f"feedback of type {kind or '(none)'} is not read",
                "send application/json, or text/csv with the columns prediction_id and true_label",
            )
        content = uploads.read_json(
            body,
            keys={"prediction_id": str, "true_label": (str, int), "source": str},
            required=("prediction_id", "true_label"),
        )
        return answer(await desk.feedback(**content), 201)

    async def _prediction(self, request: Request) -> Response:
        desk = self._desk()
        return answer(await desk.prediction(request.path_params["prediction_id"]))

    async def _model(self, request: Request) -> Response:
        return answer(self._desk().model())

    async def _readyz(self, request: Request) -> Response:
        ready, told = await self._desk().ready()
        return answer(told, 200 if ready else 503, {} if ready else {"retry-after": "5"})

    async def _index(self, request: Request) -> Response:
        return _file(self._desk().page / "index.html")

    async def _page(self, request: Request) -> Response:
        return _file(self._desk().page / request.path_params["name"])

    async def _icon(self, request: Request) -> Response:
        return _file(self._desk().page / "icon.svg")

    async def _gallery(self, request: Request) -> Response:
        return answer({"images": self._desk().gallery_list()})

    async def _gallery_picture(self, request: Request) -> Response:
        return _file(self._desk().gallery / request.path_params["name"])

    async def _monitoring(self, request: Request) -> Response:
        desk = self._desk()
        return HTMLResponse(await asyncio.to_thread(monitoring.page, desk), headers={"cache-control": "no-store"})

    async def _reports(self, request: Request) -> Response:
        desk = self._desk()
        return answer({"reports": await asyncio.to_thread(monitoring.listed, desk.reports)})

    async def _report(self, request: Request) -> Response:
        desk = self._desk()
        name = request.path_params["report_id"]
        return await asyncio.to_thread(monitoring.report, desk.reports, name)

    async def _openapi(self, request: Request) -> Response:
        return answer(_described(self._desk()))

    async def _docs(self, request: Request) -> Response:
        desk = self._desk()
        return HTMLResponse(openapi.page(_described(desk), str(request.base_url).rstrip("/")))


def _described(desk: "Worker") -> dict[str, Any]:
    first = next(iter(desk.gallery_list()), None)
    return openapi.document(desk.package, picture_url=None if first is None else first["url"])


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    raise ApiError(
        404, "not_found", f"there is no {scope['method']} {scope['path'][:100]}", "GET /docs lists what there is"
    )


async def _body(request: Request, limit: int, seconds: float) -> bytes:
    """The body, as long as it may be.

    Raises:
        Refusal: it is longer, or comes too slowly.
    """
    pieces, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise _too_large(limit, cut=True)
                pieces.append(piece)
    except TimeoutError:
        remedy = "send a smaller body, or over a faster line"
        raise ApiError(408, "too_slow", f"the body did not arrive within {seconds:g} s", remedy) from None
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _discard(receive: Receive, limit: int, seconds: float) -> None:
    """Read what is left of a body, and drop it: a client that is still sending sees no answer, but a broken line."""
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while size <= limit:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


def _client(headers: Headers) -> str | None:
    """The caller's own tag, which is logged.

    Raises:
        Refusal: it is too long or cannot be printed.
    """
    tag = headers.get("x-client")
    if tag is None or tag == "":
        return None
    if len(tag.encode()) > CLIENT_BYTES or not tag.isprintable():
        remedy = f"send at most {CLIENT_BYTES} bytes that can be printed, or leave it out"
        raise ApiError(422, "bad_field", "the header X-Client is too long or cannot be printed", remedy)
    return tag


def _file(path: Any) -> Response:
    try:
        is_there = "/" not in path.name and not path.name.startswith(".") and path.is_file()
    except OSError:  # a name longer than any disk takes
        is_there = False
    if not is_there:
        raise ApiError(404, "not_found", f"there is no file {path.name[:100]}", "GET /docs lists what there is")
    return FileResponse(path, headers={"cache-control": "no-cache"})


def _too_large(limit: int, *, cut: bool) -> ApiError:
    """
    Args:
        cut: close the connection, without reading the rest.
    """
    remedy = "send a smaller picture: it is shrunk to a few pixels in any case"
    headers = {"connection": "close"} if cut else {}
    return ApiError(413, "too_large", f"the body is larger than {limit:,} bytes", remedy, headers)


def _refusal(error: Exception) -> ApiError:
    """Any error as what the client is told; only what is our own fault is a 500, and it is logged."""
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
            "predictions cannot be kept or looked up now, and none is given that is not kept",
            "try again in a few seconds; the operator finds the reason in the log and in /readyz",
            {"retry-after": "5"},
        )
    _logger.error("unexpected", exc_info=error)
    return ApiError(500, "internal", "something unexpected went wrong", "try again; the operator finds it in the log")
