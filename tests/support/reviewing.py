"""A worker of the service in this process, and what its review page asks of it."""

import asyncio
import shutil
import time
from pathlib import Path

from starlette.testclient import TestClient

from bentos.classifier.app import App
from bentos.classifier.deployment import KNOWN_PICTURES, Deployment
from bentos.classifier.worker import Worker
from bentos.web.request_metrics import Identity
from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import REPOSITORY, current_home
from fashion.images import image_store
from fashion.images.transform import Images
from fashion.model.package import Package

KEY = {"x-api-key": "secret"}


def open_worker(
    package: Package, root: Path, overrides: list[str], *, known: bytes | None = None, **environment: str
) -> Worker:
    """A worker of a bento in `root`, whose state is that of this process.

    Args:
        package: of the model.
        root: an empty folder.
        overrides: of `configs/serve.yaml`.
        known: of `KnownPictures.to_npz`.
        environment: of the service.
    """
    settings = load_as(ServeConfig, compose(overrides, root=ServeConfig.root)).serve
    deployment = Deployment(settings, {"name": "fashion", "version": "1"}, None)
    assert package.folder is not None
    folder = root / "bento"
    shutil.copytree(REPOSITORY / "bentos" / "classifier" / "page", folder / "page")
    if known is not None:
        (folder / KNOWN_PICTURES).write_bytes(known)
    identity = Identity("fashion-classifier", "1", "Classifier", None)
    return Worker(
        deployment, current_home(), environment, model=package.folder, shadow=None, folder=folder, identity=identity
    )


def client_of(worker: Worker, *, server: str = "127.0.0.1", client: str = "127.0.0.1") -> TestClient:
    """A client at an address, connected to another one."""
    url = f"http://[{server}]" if ":" in server else f"http://{server}"
    return TestClient(App(None, lambda: worker), base_url=url, client=(client, 50000))  # type: ignore[arg-type]


def predict(worker: Worker, image: Images, *, client: str | None = None) -> str:
    """Predict a picture, and return the id."""
    png = image_store.to_png(image)
    answer = asyncio.run(worker.predict(png, explain=False, client=client, started=time.perf_counter()))
    return answer.prediction_id


def queue(client: TestClient, **query: str) -> dict:  # type: ignore[type-arg]
    """What /review/queue answers."""
    answer = client.get("/review/queue", headers=KEY, params=query)
    assert answer.status_code == 200, answer.text
    content: dict = answer.json()  # type: ignore[type-arg]
    return content


def label(client: TestClient, prediction_id: str, name: str) -> str:
    """Label a picture, and return what the model had said."""
    answer = client.post("/review/label", headers=KEY, json={"prediction_id": prediction_id, "true_label": name})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["predicted"])
