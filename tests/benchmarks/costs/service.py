"""CPU-seconds, memory and bytes of a served request. Knows no prices.

Measured twice: with the log on the service's disk, and as configs/deploy/cloudrun.yaml runs it, where an answer waits
until Firestore has the prediction and each picture is stored. Firestore is its emulator: what it uses is not counted.
"""

import json
import socket
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.benchmarks import load
from tests.benchmarks.deployed import Deployed, deploy
from tests.benchmarks.load import HOST, Load
from tests.benchmarks.measurement import ServingOptions, say
from tests.benchmarks.servers import Served, environment, free_port
from tests.benchmarks.serving import CONNECTIONS, Requests, judge, pictures
from tests.support import firestore

PROJECT = "cost"
FEW, MANY = CONNECTIONS[0], CONNECTIONS[-1]


@dataclass(frozen=True)
class RequestCost:
    """What requests took of one service."""

    cpu_few: float
    """CPU-seconds of a request at 1 connection."""
    cpu_many: float
    """CPU-seconds of a request at 64 connections."""
    seconds: float
    """Median time of an answer at 1 connection."""
    megabytes: float
    """Of all processes, resident, after the loads."""
    start_seconds: float
    start_cpu: float
    request_bytes: float
    answer_bytes: float
    log_bytes: float
    """What the service prints for each request."""
    picture_bytes: float
    """Of a stored picture; 0 where none is stored."""


def measure(options: ServingOptions) -> tuple[RequestCost, RequestCost]:
    """Measure a bento whose log is on the disk, and the same bento as Cloud Run runs it.

    Raises:
        SystemExit: there is no Firestore emulator, or an answer was wrong.
    """
    if firestore.find() is None:
        raise SystemExit("error: cost needs the Firestore emulator: gcloud components install cloud-firestore-emulator")
    with tempfile.TemporaryDirectory() as folder:
        deployed = deploy(Path(folder), options)
        local = _measure(deployed, {}, options)
        _acknowledge_remotely(deployed)
        with firestore.serve() as address:
            variables = {"FASHION_LOG": f"firestore://{PROJECT}", "FIRESTORE_EMULATOR_HOST": address}
            return local, _measure(deployed, variables, options)


def _acknowledge_remotely(deployed: Deployed) -> None:
    """Change the bento to what `serve.log.acknowledge=remote serve.log.images=true` builds, without building it."""
    (file,) = deployed.bento.rglob("deployment.json")
    content = json.loads(file.read_text())
    content["settings"]["log"] |= {"acknowledge": "remote", "images": True}
    file.write_text(json.dumps(content))


def _measure(deployed: Deployed, variables: Mapping[str, str], options: ServingOptions) -> RequestCost:
    requests, labels = pictures(deployed.package)
    port, output = free_port(), deployed.folder / f"cost-{len(variables)}.log"
    command = [sys.executable, "-m", "bentoml", "serve", str(deployed.bento), "--host", HOST]
    settings = {**environment(deployed.folder), **variables}
    with Served([*command, "--port", str(port)], settings, port, output) as server:
        start_cpu = _cpu_seconds(server)
        answer_bytes = statistics.mean(_answer_bytes(port, request) for _, request in requests[:20])
        _loaded(server, requests, labels, MANY, options)  # warm
        printed = output.stat().st_size
        few, few_cpu = _loaded(server, requests, labels, FEW, options)
        many, many_cpu = _loaded(server, requests, labels, MANY, options)
        printed = output.stat().st_size - printed
        megabytes, ready = server.megabytes()[2], server.ready_seconds
    stored = [file.stat().st_size for file in deployed.folder.glob("images/sha256/*/*.png")] if variables else []
    return RequestCost(
        cpu_few=few_cpu,
        cpu_many=many_cpu,
        seconds=statistics.median(answer.seconds for answer in few.answers),
        megabytes=megabytes,
        start_seconds=ready,
        start_cpu=start_cpu,
        request_bytes=statistics.mean(len(request) for _, request in requests),
        answer_bytes=answer_bytes,
        log_bytes=printed / (len(few.answers) + len(many.answers)),
        picture_bytes=statistics.mean(stored) if stored else 0.0,
    )


def _loaded(
    server: Served, requests: Requests, labels: Mapping[int, str], connections: int, options: ServingOptions
) -> tuple[Load, float]:
    """Load a server: what came back, and the server's CPU-seconds for each answer."""
    before = _cpu_seconds(server)
    found = load.in_turn(server.port, requests, connections=connections, seconds=0.5 if options.quick else 8.0)
    used = _cpu_seconds(server) - before
    errors: Counter[str] = Counter()
    answered = len(list(judge([*found.first, *found.answers], labels, errors)))
    if errors:
        raise SystemExit(f"error: wrong answers at {connections} connections: {dict(errors)}")
    say(f"{answered} requests at {connections} connections: {1000 * used / answered:.2f} ms CPU each")
    return found, used / answered


def _cpu_seconds(server: Served) -> float:
    def of(process: psutil.Process) -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    return sum(of(process) for process in server.processes())


def _answer_bytes(port: int, request: bytes) -> int:
    """Send a request over a connection of its own, and count what comes back until its end."""
    closing = request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    with socket.create_connection((HOST, port)) as connection:
        connection.sendall(closing)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return len(answer)
