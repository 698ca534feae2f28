"""Ray Serve: one replica behind its proxy, with FastAPI as its documentation writes it.

Run by `python -m tests.benchmarks.contenders.ray_serve PORT`: Ray starts a cluster of this machine alone.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import ray
from fastapi import FastAPI, UploadFile
from ray import serve

from tests.benchmarks.contenders.classifier import Classifier
from tests.benchmarks.load import HOST

PATIENCE_SECONDS = 2.0
"""How long Ray's processes have to end before they are killed."""

app = FastAPI()


@serve.deployment(num_replicas=1, logging_config={"enable_access_log": False})
@serve.ingress(app)
class Replica:
    """Classifies pictures."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @app.get("/readyz")
    async def readyz(self) -> dict[str, bool]:
        """Whether there is a replica."""
        return {"ready": True}

    @app.post("/predict")
    async def predict(self, image: UploadFile) -> dict[str, Any]:
        """Label and probabilities of a picture."""
        return self._classifier.classify(await image.read())


def main(port: int) -> None:
    """Serve until a signal ends all processes of the session."""
    ray.init(include_dashboard=False, _temp_dir=str(Path.cwd() / "ray"))
    signal.signal(signal.SIGTERM, _end)
    serve.start(http_options={"host": HOST, "port": port}, logging_config={"enable_access_log": False})
    serve.run(Replica.bind(), blocking=True)  # type: ignore[attr-defined]  # the decorator adds it


def _end(*_: object) -> None:
    """End all of Ray's processes, and this one last: Ray's own handler aborts when the signal reaches them first."""
    _, alive = psutil.wait_procs(psutil.Process().children(recursive=True), timeout=PATIENCE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
