"""What OpenTelemetry costs the served bento: off, metrics pushed, a share of the requests traced, and all of them."""

import contextlib
import itertools
import multiprocessing
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.benchmarks.deployed import deploy
from tests.benchmarks.load import HOST
from tests.benchmarks.measurement import Cell, ServingOptions, Spread, Table, run_one
from tests.benchmarks.servers import free_port
from tests.benchmarks.serving import CONNECTIONS, Contender, compare

OFF = "off"
PUSH_MS = 1000
"""Between two pushes of metrics: 60 times as often as by default."""


def tables(options: ServingOptions) -> Iterator[Table]:
    """Serve one bento with each setting, in turn.

    Raises:
        SystemExit: an answer was wrong or missing.
    """
    with tempfile.TemporaryDirectory() as folder, _collector() as address:
        deployed = deploy(Path(folder), options)
        contenders = {name: Contender(partial(deployed.serve, **each)) for name, each in _settings(address).items()}
        compare(contenders, deployed.package, options)
    yield _costs(contenders)
    errors = sum((each.errors[connections] for each in contenders.values() for connections in CONNECTIONS), Counter())
    if errors:
        raise SystemExit(f"error: wrong answers: {errors}")


def _settings(address: str) -> Mapping[str, Mapping[str, str]]:
    traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/v1/traces"}
    metrics = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{address}/v1/metrics"}

    def share(ratio: float) -> Mapping[str, str]:
        return {**traces, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": str(ratio)}

    return {
        OFF: {},
        f"metrics, pushed every {PUSH_MS / 1000:g} s": {**metrics, "OTEL_METRIC_EXPORT_INTERVAL": str(PUSH_MS)},
        "1 % of the requests traced": share(0.01),
        "10 % of the requests traced": share(0.1),
        "all requests traced": share(1),
    }


def _costs(contenders: Mapping[str, Contender]) -> Table:
    rows: list[dict[str, Cell]] = []
    for connections, (name, contender) in itertools.product(CONNECTIONS, contenders.items()):
        found, plain = contender.rounds[connections], contenders[OFF].rounds[connections]
        ratios = tuple(own.per_second / without.per_second for own, without in zip(found, plain, strict=True))
        rows.append(
            {
                "connections": connections,
                "OpenTelemetry": name,
                "requests/s": Spread(tuple(each.per_second for each in found)),
                "times off": Spread(ratios),
                "p95 ms": Spread(tuple(each.p95 for each in found)),
                "worker MB": statistics.median(each[0] for each in contender.megabytes),
            }
        )
    return Table(
        "Telemetry",
        rows,
        f"Median (range) of {len(contenders[OFF].ready)} rounds in turn; ratios are of loads of the same round. The "
        "collector is a process of its own on this machine, which reads what is sent and answers.",
        {"times off": ".2f", "p95 ms": ".1f"},
    )


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read and forget."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _serve_sink(port: int) -> None:
    ThreadingHTTPServer((HOST, port), _Sink).serve_forever()


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve_sink, args=[port], daemon=True)
    process.start()
    try:
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    run_one("telemetry")
