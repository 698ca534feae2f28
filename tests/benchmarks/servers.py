"""Servers of benchmarks as processes: start one, wait until it is ready, look at it, and end it. Knows no model."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.benchmarks.load import HOST

START_SECONDS = 120.0
"""Ray Serve, the slowest, took 34 on a busy machine."""
END_SECONDS = 40.0
LOOK_SECONDS = 0.01


class ServerFailed(RuntimeError):
    """A server that did not start, broke down, or did not end as it should."""


class Served:
    """A server on 127.0.0.1 while the `with` lasts, in a session of its own.

    Raises:
        ServerFailed: it ends before it is ready, its worker died meanwhile, or it leaves processes or an exit code
            that a server does not have when it is stopped.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        port: int,
        log: Path,
        *,
        workers_may_end: bool = False,
    ) -> None:
        self.port = port
        self._workers_may_end = workers_may_end
        self.ready_seconds = 0.0
        """From the start of the process to the first 200 of /readyz."""
        self._command, self._environment, self._log = command, environment, log
        self._started: list[psutil.Process] = []

    def __enter__(self) -> Self:
        started = time.perf_counter()
        with self._log.open("ab") as file:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._log.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            while not self._is_ready():
                if self._process.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    raise self._failed(f"was not ready after {time.perf_counter() - started:.0f} s")
                time.sleep(LOOK_SECONDS)
            self.ready_seconds = time.perf_counter() - started
            self._started = self.processes()
            self.worker = max(self._started, key=lambda each: each.memory_info().rss)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        survived = _runs(self.worker)
        code, leftover = self._end()
        if kind is not None:  # what went wrong first is the news
            return
        if not survived and not self._workers_may_end:
            raise self._failed("lost its worker under load")
        # uvicorn ends by the signal it received, once it has closed everything.
        if code not in (0, -signal.SIGTERM) or leftover:
            raise self._failed(f"ended with {code} and left {leftover} processes")

    def processes(self) -> list[psutil.Process]:
        """The first process and all that it started."""
        first = psutil.Process(self._process.pid)
        return [first, *first.children(recursive=True)]

    def megabytes(self) -> tuple[float, float, float]:
        """Resident memory of the worker, its proportional share (PSS), and resident memory of all processes."""
        full = self.worker.memory_full_info()
        everything = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                everything += process.memory_info().rss / 1e6
        return full.rss / 1e6, getattr(full, "pss", 0) / 1e6, everything

    def proportional_megabytes(self) -> float:
        """Memory of all processes, what they share counted once (PSS)."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                total += getattr(process.memory_full_info(), "pss", 0) / 1e6
        return total

    def cpu_seconds(self) -> float:
        """CPU time so far of all processes."""
        total = 0.0
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def libraries(self) -> str:
        """Which event loop and which HTTP parser its processes have loaded."""
        loaded = ""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # it may end meanwhile
                loaded += " ".join(region.path for region in process.memory_maps())
        return ", ".join(name if name in loaded else f"no {name}" for name in ("uvloop", "httptools"))

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _end(self) -> tuple[int | None, int]:
        """End everything that was started: exit code of the first process, and how many outlived it."""
        started = set(self._started)
        with contextlib.suppress(psutil.Error):
            started.update(self.processes())
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        # BentoML puts each worker into a session of its own: a signal to the group does not reach them.
        _, alive = psutil.wait_procs(started, timeout=2)
        leftover = [process for process in alive if _runs(process)]
        for process in leftover:
            with contextlib.suppress(psutil.Error):
                process.kill()
        return self._process.wait(), len(leftover)

    def _failed(self, what: str) -> ServerFailed:
        return ServerFailed(f"{' '.join(self._command)} {what}:\n{self._log.read_text(errors='replace')[-4000:]}")


def _runs(process: psutil.Process) -> bool:
    """False of a zombie too: a process that has ended, until its parent, or who adopted it, asks for its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def environment(folder: Path) -> dict[str, str]:
    """Variables of a process whose state lies in `folder`."""
    prefixes = ("FASHION_", "METAFLOW_", "MLFLOW_", "BENTOML_", "OTEL_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return inherited | {
        "FASHION_HOME": str(folder),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
    }


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        port: int = found.getsockname()[1]
        return port
