"""An OpenTelemetry collector for tests: an HTTP server that keeps what the published messages say. Knows no service."""

import contextlib
import gzip
import time
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from support.web import QuietHandler, serving


class Collector:
    """What was received.

    Attributes:
        spans: all spans.
        resources: the attributes of each resource that sent something, once for each message.
        pushes: the metrics of each message, by name.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.pushes: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def receive(self, path: str, body: bytes) -> bytes:
        """Keep a message, and return the answer to it.

        Raises:
            google.protobuf.message.DecodeError: it is not one.
        """
        if path == "/v1/traces":
            traces = ExportTraceServiceRequest.FromString(body)
            for each in traces.resource_spans:
                self.resources.append(attributes(each.resource.attributes))
                self.spans += [span for scope in each.scope_spans for span in scope.spans]
            return ExportTraceServiceResponse().SerializeToString()
        assert path == "/v1/metrics", path
        metrics = ExportMetricsServiceRequest.FromString(body)
        for each in metrics.resource_metrics:
            found = attributes(each.resource.attributes)
            self.resources.append(found)
            self.pushes.append((found, {m.name: m for scope in each.scope_metrics for m in scope.metrics}))
        return ExportMetricsServiceResponse().SerializeToString()

    def trace(self, trace_id: str) -> dict[str, Any]:
        """The spans of a trace, by name."""
        return {span.name: span for span in self.spans if span.trace_id.hex() == trace_id}

    def wait(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: it does not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{len(self.spans)} spans, {len(self.pushes)} pushes"
            time.sleep(0.05)


def attributes(pairs: "Iterator[KeyValue] | Any") -> dict[str, Any]:
    """Attributes as plain data; of lists, the strings."""
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    return getattr(value, kind)


@contextlib.contextmanager
def collect() -> Iterator[Collector]:
    """Serve a collector on loopback."""

    class Handler(QuietHandler):
        def do_POST(self) -> None:
            body = self.read_body()
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self.respond(200, collector.receive(self.path, body), content_type="application/x-protobuf")

    collector = Collector("")
    with serving(Handler) as collector.address:
        yield collector
