"""Traces and metrics of one process for OpenTelemetry, where its variables ask for them. Knows no endpoints."""

import threading
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

from bentos.web.metrics_push import MetricsPush
from bentos.web.request_metrics import Identity
from bentos.web.telemetry_config import TelemetryConfig
from bentos.web.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from prometheus_client import CollectorRegistry

FLUSH_SECONDS = 2.0
"""What cannot be exported in this time at the end is lost: no shutdown waits for a collector."""


class Telemetry:
    """What is exported. Off, it has no thread, and `tracing` does nothing."""

    def __init__(
        self,
        config: TelemetryConfig,
        identity: Identity,
        registry: "CollectorRegistry",
        *,
        several_workers: bool,
        update: Callable[[], None],
    ) -> None:
        """Start the threads that export.

        Args:
            config: what is exported.
            identity: of the bento.
            registry: of this process's metrics.
            several_workers: an instance has several processes, which share an id that the environment gives.
            update: called before metrics are pushed, to bring gauges up to date.
        """
        self.tracing, self._push = Tracing(None), None
        if config.traces is None and config.metrics is None:
            return
        described = resource(identity, several_workers=several_workers)
        self.tracing = Tracing(config.traces, described)
        if config.metrics is not None:
            self._push = MetricsPush(registry, config.metrics, described, interval_s=config.interval_s, update=update)

    def close(self) -> None:
        """Export what is left, traces and metrics at once, for at most `FLUSH_SECONDS`."""
        closing = [self.tracing.close, *([self._push.close] if self._push is not None else [])]
        threads = [threading.Thread(target=close, name="flush", daemon=True) for close in closing]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + FLUSH_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def resource(identity: Identity, *, several_workers: bool) -> "Resource":
    """Describe this process: what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, and for the rest the bento.

    `service.instance.id` differs between any two processes: counts of several instances then add up, and none is taken
    for another's restart.

    Args:
        identity: of the bento.
        several_workers: an instance has several processes, which share an id that the environment gives.
    """
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    given = OTELResourceDetector().detect().attributes
    instance = str(given.get("service.instance.id") or uuid.uuid4())
    own = {
        "service.name": given.get("service.name") or identity.service_name,
        "service.version": given.get("service.version") or identity.service_version,
        "service.instance.id": f"{instance}-{identity.worker_index}" if several_workers else instance,
    }
    return Resource.create().merge(Resource(own))
