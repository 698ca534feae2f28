"""A service in processes of its own, as `bentoml serve` starts it. Knows URLs and processes, not what is answered."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    """Return a port of loopback that nothing listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


class Served:
    """A bento that is being served."""

    def __init__(
        self,
        bento: str,
        environment: Mapping[str, str],
        output: Path,
        *,
        python: str = sys.executable,
        patience: float = 60,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = output
        self.started = time.monotonic()
        # BentoML empties the metrics folder of its home at each start: two services cannot share one home.
        own = output.parent / f"bentoml-{self.port}"
        own.mkdir(parents=True)
        for name in ("bentos", "models"):
            (own / name).symlink_to(Path(environment["BENTOML_HOME"], name))
        environment = {**environment, "BENTOML_HOME": str(own)}
        command = [python, "-m", "bentoml", "serve", bento, "--port", str(self.port)]
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=output.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.ready_seconds = self._wait(patience)

    def workers(self) -> list[int]:
        """Return the process ids of the workers."""
        return [each.pid for each in self._processes() if "_bentoml_impl.worker.service" in " ".join(each.cmdline())]

    def addresses(self) -> set[str]:
        """Return the addresses that its processes listen on."""
        listening = [
            each for one in self._processes() for each in one.net_connections("tcp") if each.status == "LISTEN"
        ]
        return {each.laddr.ip for each in listening}

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = 30,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request, and return status, headers in lower case, and body."""
        request = urllib.request.Request(self.url + path, body, dict(headers or {}), method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

    def json(self, method: str, path: str, content: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send JSON, and return the JSON of the answer."""
        body = None if content is None else json.dumps(content).encode()
        return json.loads(self.request(method, path, body, {"content-type": "application/json", **(headers or {})})[2])

    def predict(self, picture: bytes, query: str = "", kind: str = "image/png") -> Any:
        """Send one picture as it is, and return the answer."""
        return json.loads(self.request("POST", f"/predict{query}", picture, {"content-type": kind})[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the service and return its exit code.

        Raises:
            AssertionError: one of its processes outlives the first.
        """
        processes = self._processes()
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        try:
            code = self.process.wait(30)
            _, alive = psutil.wait_procs(processes, timeout=5)
            assert not alive, f"{alive} outlived the service"
            return code
        finally:
            self.kill(processes)

    def kill(self, processes: Sequence[psutil.Process] = ()) -> None:
        """Kill all processes. BentoML gives each worker its own session, so a signal to the group would miss them."""
        for each in [*processes, *self._processes()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        self.process.wait()

    def _processes(self) -> list[psutil.Process]:
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _wait(self, seconds: float) -> float:
        while time.monotonic() - self.started < seconds:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                # Connections are accepted before a worker can answer.
                if self.request("GET", "/readyz", timeout=3)[0] == 200:
                    return time.monotonic() - self.started
            time.sleep(0.05)
        self.kill()
        raise AssertionError(f"the service did not become ready:\n{self.output.read_text()[-4000:]}")
