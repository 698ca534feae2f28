"""Thousands of damaged and huge pictures at once, to a worker that may use 512 MB: killed, or answered by 5xx?"""

import concurrent.futures
import contextlib
import http.client
import itertools
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.deployed import deploy
from tests.benchmarks.load import HOST
from tests.benchmarks.measurement import ServingOptions, Table, run_one, say
from tests.support.mutations import large_pictures, mutated_uploads

UPLOADS, QUICK_UPLOADS = 10_000, 400
CONNECTIONS = 16
MEGAPIXELS = 50.0
"""Of the large pictures, of each format and mode."""
LIMIT_BYTES = 512 * 2**20
"""What the kernel lets the worker have: `serve.limits.memory_bytes`."""
CGROUPS = Path("/sys/fs/cgroup")
ANSWERS = {200, 400, 413, 415}
"""Statuses of pictures that are read, damaged, too large, and of no format that is known."""


def tables(options: ServingOptions) -> Iterator[Table]:
    """Send them, and count the answers.

    Raises:
        SystemExit: memory cannot be limited here, something was killed, or an answer was another than it should be.
    """
    count = QUICK_UPLOADS if options.quick else UPLOADS
    with tempfile.TemporaryDirectory() as folder, memory_group() as group:
        deployed = deploy(Path(folder), options)
        with deployed.serve() as server:
            used = round(1e6 * server.megabytes()[1])  # stays with the group that the worker was in
            group.limit(LIMIT_BYTES - used)
            group.add(server.worker.pid)
            started = time.monotonic()
            answers = _send(server.port, count)
            seconds = time.monotonic() - started
            killed = max(group.num_killed(), int(not server.worker.is_running()))
            peak = used + group.peak_bytes()
            after_mb = server.proportional_megabytes()
    wrong = {name: number for name, number in answers.items() if not _is_right(name)}
    figures = {
        "uploads": answers.total(),
        **{f"answered with {name}": answers[name] for name in sorted(answers)},
        "workers killed": killed,
        "uploads a second": answers.total() / seconds,
        "MB of the worker at most, file cache included": peak / 2**20,
        "MB of the service afterwards, without it": after_mb,
    }
    yield Table(
        "Damaged uploads under a limit of memory",
        [{"": name, "found": value} for name, value in figures.items()],
        f"{count:,} pictures with bytes changed, cut and doubled, {MEGAPIXELS:g} megapixels large among them, at "
        f"{CONNECTIONS} connections. The kernel limits the worker to "
        f"{LIMIT_BYTES // 2**20} MB, and kills it at more. 503 tells when to come again.",
        {"found": ",.0f"},
    )
    if wrong or killed:
        raise SystemExit(f"error: wrong answers: {wrong or 'none'}; {killed} workers were killed")


def _is_right(name: str) -> bool:
    return name == "503 with Retry-After" or (name.isdigit() and int(name) in ANSWERS)


def _send(port: int, count: int) -> Counter[str]:
    """Answers by status. Each thread has one connection, and opens it again where the service closes it."""
    uploads = itertools.islice(mutated_uploads(0, large_pictures(MEGAPIXELS)), count)
    lock, local = threading.Lock(), threading.local()

    def work(_: int) -> Counter[str]:
        found: Counter[str] = Counter()
        local.connection = http.client.HTTPConnection(HOST, port, timeout=120)
        while True:
            with lock:
                content = next(uploads, None)
            if content is None:
                return found
            found[_answer(local.connection, content)] += 1
            if found.total() % 250 == 0:
                say(f"{found.total() * CONNECTIONS:,} of {count:,}, about")

    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(work, range(CONNECTIONS)), Counter())


def _answer(connection: http.client.HTTPConnection, content: bytes) -> str:
    try:
        connection.request("POST", "/predict", content, {"content-type": "image/png"})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return f"no answer ({type(error).__name__})"
    retry = " with Retry-After" if "retry-after" in response.headers else ""
    return f"{response.status}{retry}"


class MemoryGroup:
    """A control group of the kernel: what its processes use together has a limit."""

    def __init__(self, folder: Path, *, limit: str, peak: str, events: str) -> None:
        self._folder, self._limit, self._peak, self._events = folder, limit, peak, events

    def limit(self, number: int) -> None:
        """Limit the bytes that all processes use together from now on."""
        (self._folder / self._limit).write_text(str(number))

    def add(self, process_id: int) -> None:
        """Move a process into the group; what it uses already is not counted."""
        (self._folder / "cgroup.procs").write_text(str(process_id))

    def peak_bytes(self) -> int:
        """The most that the group has used."""
        return int((self._folder / self._peak).read_text())

    def num_killed(self) -> int:
        """How many of its processes the kernel has killed for want of memory."""
        lines = (self._folder / self._events).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextlib.contextmanager
def memory_group() -> Iterator[MemoryGroup]:
    """A group, in version 1 or 2 of the kernel's interface.

    Raises:
        SystemExit: this user may make none.
    """
    name = f"fashion-{os.getpid()}"
    if (CGROUPS / "memory").is_dir():
        folder = CGROUPS / "memory" / name
        files = {"limit": "memory.limit_in_bytes", "peak": "memory.max_usage_in_bytes", "events": "memory.oom_control"}
    else:
        folder = CGROUPS / name
        files = {"limit": "memory.max", "peak": "memory.peak", "events": "memory.events"}
    try:
        folder.mkdir()
    except OSError as error:
        raise SystemExit(f"error: memory cannot be limited here ({error}): run this as root") from None
    try:
        yield MemoryGroup(folder, **files)
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


if __name__ == "__main__":
    run_one("uploads")
