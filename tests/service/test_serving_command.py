"""`fashion serve`: a newer bento takes its place without costing an answer, and no fault takes the service away."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import bentos, steady
from support.served import free_port

from fashion.home import REPOSITORY

START_SECONDS = 180.0


class Service:
    """`fashion serve --follow` on a home."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.log = home / "serve.log"
        self.start()

    def start(self) -> None:
        """Start it, without waiting for anything."""
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fashion", "serve", "--follow", "--port", str(self.port)],
                cwd=REPOSITORY,
                env=bentos.environment(self.home),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.log.read_text()

    def workers(self) -> list[psutil.Process]:
        """Its children."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def summary(self) -> str | None:
        """Which bento answers, by its summary; None where none does."""
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/model", timeout=20) as answer,
        ):
            return str(json.load(answer)["summary"])
        return None

    def deploy(self, version: str, **known: str) -> None:
        """Make another bento the latest.

        Args:
            version: of it, and the summary of its model.
            known: other fields of its model.
        """
        bentos.copy(self.home, "fashion-classifier:v1", version, lambda d: d["model"].update(summary=version, **known))

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something; fail with what was printed."""
        until = time.monotonic() + START_SECONDS
        while not condition():
            assert time.monotonic() < until, self.text
            assert self.process.poll() is None, self.text
            time.sleep(0.1)

    def end(self) -> None:
        """End what is left of it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in [*self.workers(), psutil.Process(self.process.pid)]:
                each.kill()
        self.process.wait()


@pytest.fixture
def service(bento_home: Path) -> Iterator[Service]:
    """The service, in service."""
    service = Service(bento_home, free_port())
    try:
        service.until(lambda: service.summary() == "")
        yield service
    finally:
        service.end()


def alter_answers(deployment: dict[str, Any]) -> None:
    for known in deployment["known"]:
        known["label"] = "Bag" if known["label"] != "Bag" else "Coat"


@pytest.mark.slow
@pytest.mark.fault("a new bento is damaged, or a worker, or the whole service is killed")
def test_a_new_bento_never_costs_an_answer(service: Service, pngs: list[bytes]) -> None:
    """One service from its start to its end: each start of one costs seconds."""
    # A newer bento takes its place under load; a worse one does not, and neither costs a request.
    with steady.load(service.port, pngs[0], pause=0.02) as outcome:
        service.deploy("v2")
        service.until(lambda: service.summary() == "v2")
        bentos.copy(service.home, "fashion-classifier:v1", "v3", alter_answers)
        service.until(lambda: "fashion-classifier:v3 is not served: it takes picture 0.png" in service.text)
        bentos.copy(service.home, "fashion-classifier:v1", "v5", lambda _: None, manifest_bytes=100)
        service.until(lambda: "v5 is not served: it cannot be read" in service.text)
        service.deploy("v6", digest="0" * 64)
        service.until(lambda: "v6 is not served: its worker ended with code" in service.text)
        assert service.text.count("v2 stays in service") == 3
        assert service.summary() == "v2"
        service.until(lambda: len(service.workers()) == 1)
        time.sleep(0.5)
    assert outcome.failed == {}
    assert outcome.kept_open["200"] > 100
    assert outcome.fresh["200"] > 100
    assert "Traceback" not in service.text

    # A worker that is killed is replaced.
    killed = service.workers()[0]
    killed.kill()
    service.until(lambda: len(service.workers()) == 1 and killed not in service.workers())
    service.until(lambda: service.summary() == "v2")

    # The service is killed: its workers end, and the next start finds the last good bento, though it is not the latest.
    workers = service.workers()
    service.process.kill()
    service.process.wait()
    service.start()
    service.until(lambda: service.summary() == "v2" and set(service.workers()).isdisjoint(workers))
    psutil.wait_procs(workers, timeout=30)
    assert not [each for each in workers if each.is_running()]
    service.until(lambda: service.text.count("v6 is not served") == 2)

    # Ctrl-C ends everything.
    workers = service.workers()
    os.kill(service.process.pid, signal.SIGINT)
    assert service.process.wait(30) == 0
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    assert not list((service.home / "serving" / str(service.port)).glob("workers/*"))


@pytest.mark.slow
@pytest.mark.fault("the port is in use")
def test_a_port_in_use_is_one_sentence_with_the_remedy(built_home: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "fashion", "serve", "--port", str(port)],
            cwd=REPOSITORY,
            env=bentos.environment(built_home),
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: port {port} of 127.0.0.1 is in use by another program: end that one, or choose another port, such as "
        f"`fashion serve --follow --port {port + 1}`\n"
    )


@pytest.mark.slow
def test_without_a_bento_it_is_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "serve"],
        cwd=REPOSITORY,
        env=bentos.environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: there is no bento fashion-classifier:latest in ")
    assert sentence.endswith("run `make bento` first")


@pytest.mark.slow
@pytest.mark.fault("the only bento is damaged")
def test_a_damaged_bento_is_one_sentence(bento_home: Path) -> None:
    for model in bento_home.glob("bentoml/models/*/*/model.onnx"):
        model.write_bytes(model.read_bytes()[:-1])
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-m", "fashion", "serve", "--port", str(port)],
        cwd=REPOSITORY,
        env=bentos.environment(bento_home),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert "fashion-classifier:v1 is not served" in sentence
    assert "model.onnx differs from what was packed" in sentence
    assert "Traceback" in (bento_home / "serving" / str(port) / "failed.log").read_text()
