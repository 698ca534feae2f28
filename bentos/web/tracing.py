"""Traces of requests by OpenTelemetry. Off, it costs a comparison. Knows no endpoints and no models.

A request's span continues the caller's trace (W3C `traceparent`). Parts of its work become spans below it, once their
times are known: the threads that do the work know nothing of traces.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from bentos.web.telemetry_config import Exporter

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Span

SCOPE = "fashion"
"""Name of the instrumentation."""

Headers = Iterable[tuple[bytes, bytes]]


class RequestSpan:
    """The span of one request, current in its task until `finish`."""

    def __init__(self, span: "Span") -> None:
        from opentelemetry import context, trace

        self._span, self._context = span, context
        self._token = context.attach(trace.set_span_in_context(span))

    def finish(self, status: int) -> None:
        """End the span.

        Args:
            status: of the response.
        """
        from opentelemetry.trace import StatusCode

        self._context.detach(self._token)
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Tracing:
    """Makes spans and exports them, or does nothing."""

    def __init__(self, exporter: Exporter | None, resource: "Resource | None" = None) -> None:
        """
        Args:
            exporter: where spans go; None makes none.
            resource: describes this process.
        """
        self._provider = None
        if exporter is None:
            return
        from opentelemetry import propagate, trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

        target: SpanExporter
        if exporter == "console":
            target = ConsoleSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            target = OTLPSpanExporter()
        self._trace, self._propagate = trace, propagate
        # Its own exit handler would wait for a collector that hangs, without a bound.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(target))
        self._tracer = self._provider.get_tracer(SCOPE)
        self._fields = {name.encode() for name in propagate.get_global_textmap().fields}

    def start(self, method: str, route: str, path: str, headers: Headers) -> RequestSpan | None:
        """Start the span of a request; None if there is none to make: tracing is off, or the request not sampled.

        Args:
            method: of HTTP.
            route: the path of the endpoint.
            path: as the client sent it.
            headers: of the request; may name the caller's trace.
        """
        if self._provider is None:
            return None
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in self._fields}
        parent = self._propagate.extract(carrier) if carrier else None
        attributes = {"http.request.method": method, "http.route": route, "url.path": path}
        kind = self._trace.SpanKind.SERVER
        span = self._tracer.start_span(f"{method} {route}", parent, kind, attributes)
        return RequestSpan(span) if span.is_recording() else None

    @property
    def active(self) -> bool:
        """True within a request that is traced."""
        return self._provider is not None and self._trace.get_current_span().is_recording()

    def span(self, name: str, start_ns: int, end_ns: int, attributes: Mapping[str, Any] | None = None) -> None:
        """Add a part to the current request's trace, if it has one.

        Args:
            name: of the span.
            start_ns: of `time.time_ns`.
            end_ns: of `time.time_ns`.
            attributes: of the span.
        """
        if self.active:
            self._tracer.start_span(name, attributes=attributes, start_time=start_ns).end(end_ns)

    def annotate(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes to the current request's span, if it has one."""
        if self.active:
            self._trace.get_current_span().set_attributes(attributes)

    def close(self) -> None:
        """Export what waits. May take as long as the exporter's time limit: call it from a thread that can be left."""
        if self._provider is not None:
            self._provider.shutdown()
