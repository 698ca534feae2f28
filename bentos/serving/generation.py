"""The workers of one bento: started, told to listen, replaced when they end, and ended. Knows no other bento."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bentos.serving.worker import LISTEN

WORKER = Path(__file__).with_name("worker.py")
KEPT_LINES = 200
"""Lines of a worker's output that are kept until it is in service."""
END_SECONDS = 45.0
"""How long a worker may take to finish its requests and to ship its log before it is killed."""
RESTART_SECONDS = (0.2, 1.0, 5.0, 10.0)
"""Pauses before a worker that ended by itself is started again; the last one repeats."""
STEADY_SECONDS = 60.0
"""A worker that ran this long starts again without a pause."""

_ERROR = re.compile(r"[A-Za-z_][\w.]*: (.+)")
"""The last line of a traceback."""


@dataclass(frozen=True)
class Bento:
    """What is needed to run a bento."""

    tag: str
    folder: Path
    service: str
    """Name of BentoML's service."""
    workers: int


def load_bento(tag: str) -> Bento:
    """Read a bento of the store.

    Raises:
        Exception: there is no such bento, or it is damaged; BentoML raises almost any type.
    """
    from bentoml.bentos import get

    found = get(tag)
    entry = next((each for each in found.info.services if each.name == found.info.entry_service), None)
    if entry is None:
        raise ValueError("its bento.yaml is cut off: it names no service")
    workers = entry.config.get("workers", 1)
    return Bento(tag, Path(found.path), entry.name, workers if isinstance(workers, int) else os.cpu_count() or 1)


@dataclass
class WorkerProcess:
    """A worker, its address for checks, and the connection that it ends with."""

    process: "subprocess.Popen[str]"
    address: tuple[str, int]
    control: socket.socket
    started: float = field(default_factory=time.monotonic)
    output: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    is_shown: bool = False
    """True once its output goes to this process's standard error."""

    def forward(self) -> None:
        """Keep the worker's output, and pass it on once it is in service; returns at its end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if self.is_shown:
                print(line, end="", file=sys.stderr, flush=True)
            else:
                self.output.append(line)

    def show(self) -> None:
        """Show what was kept, and from now on everything."""
        self.is_shown = True
        with contextlib.suppress(IndexError):
            while True:
                print(self.output.popleft(), end="", file=sys.stderr, flush=True)


class Generation:
    """All workers of one bento."""

    def __init__(self, bento: Bento, listener: socket.socket, environment: Mapping[str, str], folder: Path) -> None:
        """Start the workers; they answer on addresses of their own until `listen`.

        Args:
            bento: to run.
            listener: the service's listening socket.
            environment: of the workers.
            folder: of this service's files; the workers' metrics are in a folder inside it.
        """
        self.bento, self._listener = bento, listener
        folder.mkdir(parents=True, exist_ok=True)
        # BentoML's own place for them is one a home: two generations would count in the same files.
        self._metrics = Path(tempfile.mkdtemp(prefix="metrics-", dir=folder))
        self._environment = {**environment, "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}
        self._restarts = 0
        self._restart_at = 0.0
        self._ending_until: float | None = None
        self._is_listening = False
        self.workers = [self._start(index) for index in range(1, bento.workers + 1)]

    def listen(self, seconds: float) -> bool:
        """Let all workers answer on the service's port; False if one of them does not within `seconds`."""
        self._is_listening = True
        for worker in self.workers:
            worker.show()
            if not self._tell_to_listen(worker, seconds):
                return False
        return True

    def ended(self) -> list[WorkerProcess]:
        """Return the workers that have ended by themselves."""
        return [worker for worker in self.workers if worker.process.poll() is not None]

    def restart_ended(self) -> None:
        """Start workers anew that have ended by themselves, after a pause that grows while they do."""
        now = time.monotonic()
        for index, worker in enumerate(self.workers, 1):
            code = worker.process.poll()
            if code is None or now < self._restart_at:
                continue
            self._restarts = 0 if now - worker.started > STEADY_SECONDS else self._restarts + 1
            self._restart_at = now + RESTART_SECONDS[min(self._restarts, len(RESTART_SECONDS) - 1)]
            print(f"a worker of {self.bento.tag} ended with code {code}: another one starts", file=sys.stderr)
            try:
                started = self._start(index)
            except OSError as error:  # no more processes or files, which passes
                print(f"warning: it cannot be started: {error.strerror or error}", file=sys.stderr)
                continue
            worker.control.close()
            self.workers[index - 1] = started
            started.show()
            with contextlib.suppress(OSError):  # it listens once it is ready
                started.control.sendall(LISTEN)

    def end(self) -> None:
        """Ask all workers to finish their requests and to end; `is_over` tells when they have."""
        self._ending_until = time.monotonic() + END_SECONDS
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)

    def is_over(self) -> bool:
        """True once all workers have ended; those that take too long are killed."""
        assert self._ending_until is not None
        alive = [worker for worker in self.workers if worker.process.poll() is None]
        if alive and time.monotonic() > self._ending_until:
            self.kill()
            alive = []
        if not alive:
            for worker in self.workers:
                worker.control.close()
            shutil.rmtree(self._metrics, ignore_errors=True)
        return not alive

    def kill(self) -> None:
        """End all workers at once."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait()

    def failure(self) -> str:
        """Say why a worker ended: its exit code, and the error that it printed last."""
        for worker in self.ended():
            lines = [line.strip() for line in worker.output if line.strip()]
            errors = [found[1] for line in lines if (found := _ERROR.match(line))]
            last = (errors or lines or ["it printed nothing"])[-1]
            return f"its worker ended with code {worker.process.returncode}: {last[:300]}"
        return "its workers do not end and do not answer"

    def output(self) -> str:
        """Return what the workers printed that was not shown."""
        return "".join(line for worker in self.workers for line in worker.output)

    def _start(self, index: int) -> WorkerProcess:
        checked = socket.socket()  # the worker listens on it once it is ready: until then connections are refused
        checked.bind(("127.0.0.1", 0))
        ours, theirs = socket.socketpair()
        descriptors = [each.fileno() for each in (theirs, self._listener, checked)]
        # -P: the folder of this program would make other modules importable.
        command = [sys.executable, "-P", str(WORKER), str(descriptors[0]), str(descriptors[1]), self.bento.tag]
        command += ["--fd", str(descriptors[2]), "--service-name", self.bento.service, "--worker-id", str(index)]
        process = subprocess.Popen(
            [*command, "--args", "{}"],
            env=self._environment,
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C in a terminal reaches the supervisor alone, which ends them in order
        )
        worker = WorkerProcess(process, checked.getsockname()[:2], ours)
        theirs.close()
        checked.close()
        threading.Thread(target=worker.forward, daemon=True).start()
        return worker

    @staticmethod
    def _tell_to_listen(worker: WorkerProcess, seconds: float) -> bool:
        try:
            worker.control.settimeout(seconds)
            worker.control.sendall(LISTEN)
            return worker.control.recv(1) == LISTEN
        except OSError:
            return False
