"""The BentoML service: BentoML's server, store, probes, metrics and client, with our own front before them."""

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import bentoml
from _bentoml_sdk import Service  # what `service_class` wants; BentoML has no public name for it
from bentoml.models import BentoModel

FOLDER = Path(__file__).parent
DEPLOYMENT = json.loads((FOLDER / "deployment.json").read_bytes())
SHADOW = DEPLOYMENT["shadow"]

_running: list[Any] = []


class FrontedService(Service[Any]):
    """A service whose requests meet the front first."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """BentoML's application, behind ours."""
        from bentos.classifier.app import App

        return App(super().to_asgi(is_main=is_main), lambda: _running[0])


@bentoml.service(
    name="fashion-classifier",
    workers=DEPLOYMENT["settings"]["workers"],
    http={"host": "127.0.0.1"},  # BentoML's own default is every address; BENTOML_HOST and --host tell it otherwise
    # The front measures, logs and limits; these would cost every probe more than it does.
    logging={"access": {"enabled": False}},
    service_class=FrontedService,
)
class Classifier:
    """Classifies pictures of clothes."""

    model = BentoModel(DEPLOYMENT["model"]["tag"])
    if SHADOW is not None:
        shadow = BentoModel(SHADOW["tag"])

    def __init__(self) -> None:
        from bentos.classifier.worker import Deployment, Worker
        from fashion.config.compose import load_as
        from fashion.config.serve import ServiceConfig
        from fashion.home import current_home

        settings = load_as(ServiceConfig, DEPLOYMENT["settings"])
        deployment = Deployment(settings, DEPLOYMENT["model"], SHADOW, DEPLOYMENT["home"])
        os.environ.setdefault("FASHION_HOME", deployment.home)
        self.desk = Worker(
            deployment,
            current_home(),
            os.environ,
            model=Path(self.model.path),
            shadow=None if SHADOW is None else Path(self.shadow.path),
            folder=FOLDER,
        )
        _running[:] = [self.desk]
        # BentoML brings hundreds of thousands of objects that stay: without this, each full collection looks at all.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Finish, ship and close."""
        self.desk.close()

    # What BentoML's Python client calls. Over HTTP the front answers; these are for its schema, and in-process use.

    @bentoml.api(route="/predict")
    async def predict(self, image: Path, explain: bool = False) -> dict[str, Any]:
        """Classify one picture."""
        started = time.perf_counter()
        return await self.desk.predict(image.read_bytes(), explain=explain, client=None, started=started)

    @bentoml.api(route="/predict/batch")
    async def predict_batch(self, images: list[Path]) -> dict[str, Any]:
        """Classify several pictures."""
        from bentos.web.uploads import Part

        started = time.perf_counter()
        files = [Part("images", image.name, image.read_bytes()) for image in images]
        return await self.desk.predict_batch(files, client=None, started=started)

    @bentoml.api(route="/feedback")
    async def feedback(self, prediction_id: str, true_label: str, source: str = "client") -> dict[str, Any]:
        """Say what a prediction should have been."""
        return await self.desk.feedback(prediction_id, true_label, source)
