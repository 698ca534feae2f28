"""`make serve`: the latest bento is served, and a newer one takes its place."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
from support.machine import FLOWS, Machine
from support.served import free_port

from fashion.home import REPOSITORY


def serving(environment: dict[str, str], output: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "fashion", "serve", *arguments],
            cwd=REPOSITORY,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def version(port: int, wanted: str, seconds: float = 90) -> str:
    """Return the version that answers, once it is the wanted one or `seconds` have passed."""
    found, until = "", time.monotonic() + seconds
    while found != wanted and time.monotonic() < until:
        with (
            contextlib.suppress(OSError, ValueError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/model", timeout=5) as answer,
        ):
            found = json.load(answer)["version"]
        time.sleep(0.1)
    return found


def test_a_newer_bento_takes_the_place_of_the_one_before(challenged: Machine, bento: str, tmp_path: Path) -> None:
    shutil.copytree(challenged.root / "bentoml", tmp_path / "bentoml", symlinks=True)
    environment = challenged.serving(BENTOML_HOME=str(tmp_path / "bentoml"))
    (tmp_path / "bentoml/bentos/fashion-classifier/latest").write_text(bento.split(":")[1])
    port = free_port()
    process = serving(environment, tmp_path / "output.log", "--follow", "--port", str(port))
    try:
        assert version(port, "1") == "1", (tmp_path / "output.log").read_text()
        command = [sys.executable, str(FLOWS / "deploy_flow.py"), "run", "version=2", "serve.gallery=0"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert version(port, "2") == "2", (tmp_path / "output.log").read_text()
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
    finally:
        if process.poll() is None:
            for each in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
                each.kill()
    text = (tmp_path / "output.log").read_text()
    assert f"{bento} on http://127.0.0.1:{port}" in text
    assert "fashion-classifier:v2-" in text


def test_without_a_bento_it_is_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "FASHION_HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "bentoml")}
    process = serving(environment, tmp_path / "output.log")
    assert process.wait(60) == 1
    sentence = (tmp_path / "output.log").read_text().strip().splitlines()[-1]
    assert sentence.startswith("error: there is no bento fashion-classifier:latest in ")
    assert sentence.endswith("run `make bento` first")
