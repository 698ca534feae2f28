"""The BentoML service: BentoML's server, store, probes, metrics and client, behind the application of `app.py`."""

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import bentoml
from _bentoml_sdk import Service  # `service_class` needs a subclass of it; BentoML has no public name for it
from bentoml.models import BentoModel

from bentos.web.request_metrics import SECONDS, Identity
from fashion.config.names import MODEL_NAME

FOLDER = Path(__file__).parent
DEPLOYMENT = json.loads((FOLDER / "deployment.json").read_bytes())  # written by `deployment.bento_files`
SHADOW = DEPLOYMENT["shadow"]
CANARY = DEPLOYMENT.get("canary")  # bentos of before canaries say nothing of them

_running: list[Any] = []


class ServiceBehindApp(Service[Any]):
    """A service whose requests reach `App` first."""

    def to_asgi(self, is_main: bool = True) -> Any:
        """Wrap BentoML's application."""
        from bentos.classifier.app import App
        from bentos.web import protocol

        protocol.install()  # BentoML makes uvicorn's server after this
        return App(super().to_asgi(is_main=is_main), lambda: _running[0])


@bentoml.service(
    name=DEPLOYMENT.get("bento", MODEL_NAME),
    workers=DEPLOYMENT["settings"]["workers"],
    http={"host": "127.0.0.1"},  # BentoML's default is every address; BENTOML_HOST and --host change it
    # App counts and limits requests; an access log would cost a probe more than its answer.
    logging={"access": {"enabled": False}},
    metrics={"duration": {"buckets": list(SECONDS)}},
    service_class=ServiceBehindApp,
)
class Classifier:
    """Classifies pictures."""

    model = BentoModel(DEPLOYMENT["model"]["tag"])
    if SHADOW is not None:
        shadow = BentoModel(SHADOW["tag"])
    if CANARY is not None:
        canary = BentoModel(CANARY["tag"])

    def __init__(self) -> None:
        from bentos.classifier.deployment import Deployment, state_folder
        from bentos.classifier.worker import Worker
        from fashion.config.compose import load_as
        from fashion.config.serve import ServiceConfig
        from fashion.home import current_home

        settings = load_as(ServiceConfig, DEPLOYMENT["settings"])
        deployment = Deployment(settings, DEPLOYMENT["model"], SHADOW, CANARY)
        os.environ["FASHION_HOME"] = state_folder(os.environ)
        self.worker = Worker(
            deployment,
            current_home(),
            os.environ,
            model=Path(self.model.path),
            shadow=None if SHADOW is None else Path(self.shadow.path),
            canary=None if CANARY is None else Path(self.canary.path),
            folder=FOLDER,
            identity=identity(),
        )
        self.worker.metrics.requests.announce(bentoml.server_context.service_routes)
        _running[:] = [self.worker]
        # BentoML leaves hundreds of thousands of objects that stay: without this, each full collection visits them all.
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown
    def close(self) -> None:
        """Finish what was accepted, ship the log and close it."""
        self.worker.close()

    # For the schema of BentoML's Python client, and for use in this process. Over HTTP, App answers.

    @bentoml.api(route="/predict")
    async def predict(self, image: Path, explain: bool = False) -> dict[str, Any]:
        """Classify one picture."""
        started = time.perf_counter()
        return _plain(await self.worker.predict(image.read_bytes(), explain=explain, client=None, started=started))

    @bentoml.api(route="/predict/batch")
    async def predict_batch(self, images: list[Path]) -> dict[str, Any]:
        """Classify several pictures."""
        from bentos.web.uploads import Part

        started = time.perf_counter()
        files = [Part("images", image.name, image.read_bytes()) for image in images]
        return _plain(await self.worker.predict_batch(files, client=None, started=started))

    @bentoml.api(route="/feedback")
    async def feedback(self, prediction_id: str, true_label: str, source: str = "client") -> dict[str, Any]:
        """Store what a prediction should have been."""
        from bentos.classifier.schemas import FeedbackRequest

        return _plain(await self.worker.records.add_feedback(FeedbackRequest(prediction_id, true_label, source)))


def identity() -> Identity:
    """Return the labels of BentoML's own metrics."""
    context = bentoml.server_context
    return Identity(context.bento_name, context.bento_version, context.service_name or "", context.worker_index)


def _plain(answer: Any) -> dict[str, Any]:
    from bentos.web.responses import adapter

    content: dict[str, Any] = adapter(type(answer)).dump_python(answer, mode="json")
    return content
