"""The bento's image: its Dockerfile is clean, its steps work, and it serves with a read-only root file system."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import dockerfile
from support.dockerfile import Stage
from support.manifests import file, paths_of_probes
from support.served import free_port

from fashion.home import REPOSITORY
from fashion.model.package import Package

pytestmark = pytest.mark.slow

BUILD = """
import sys
from pathlib import Path
import bentoml
from bentos import building
from bentos.classifier.deployment import bento_files
from fashion.config.compose import as_dict, compose, load_as
from fashion.config.serve import ServeConfig
settings = load_as(ServeConfig, compose(["serve.gallery=0"], root="serve")).serve
tag = building.store_model(Path(sys.argv[1]), name="fashion-classifier", version=1, labels={})
model = {"name": "fashion-classifier", "version": "1", "tag": tag, "summary": "", "lineage": {}}
deployment = {"settings": as_dict(settings), "model": model, "shadow": None}
bento = building.build("classifier", bento_files(deployment, []), version="v1")
bentoml.container.get_containerfile(bento, sys.argv[2])
"""


@pytest.fixture(scope="module")
def context(tiny_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `bentoml containerize` hands to Docker: a bento with its models, and `Dockerfile` beside it."""
    folder = tmp_path_factory.mktemp("bento")
    environment = {**os.environ, "BENTOML_HOME": str(folder / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-c", BUILD, str(tiny_package.folder), str(folder / "Dockerfile")]
    # From /: BentoML reads templates below the working directory only.
    done = subprocess.run(
        command, cwd="/", env={**environment, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "bentoml" / "bentos" / "fashion-classifier" / "v1", folder / "context")
    shutil.copytree(folder / "bentoml" / "models", folder / "context" / "models")
    return folder / "context"


@pytest.fixture(scope="module")
def image(context: Path) -> Stage:
    dockerfile.require_root()
    folder = context.with_name("roots")
    folder.mkdir()
    return dockerfile.build(context.with_name("Dockerfile").read_text(), context, folder)


@pytest.fixture(scope="module")
def url(image: Stage, context: Path) -> Iterator[str]:
    """The service of the image, with a read-only root file system."""
    port = free_port()
    environment = {"PORT": str(port), "BENTOML_HOST": "127.0.0.1"}
    log = context.with_name("log")
    with log.open("w") as output:
        process = image.start(env=environment, read_only=True, stdout=output.fileno())
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()
            try:
                if request(f"http://127.0.0.1:{port}/readyz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


def request(url: str, body: bytes | None = None, kind: str = "image/png") -> tuple[int, bytes]:
    sent = urllib.request.Request(url, body, {"content-type": kind})
    try:
        with urllib.request.urlopen(sent, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_hadolint_finds_nothing(context: Path) -> None:
    program = Path(sys.executable).parent / "hadolint"
    command = [str(program), "--no-color", str(context.with_name("Dockerfile"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_uv_is_the_locked_one(context: Path) -> None:
    (line,) = [x for x in (REPOSITORY / "requirements.lock").read_text().splitlines() if x.startswith("uv==")]
    version = line.removeprefix("uv==").split()[0]
    assert f"ARG UV_VERSION={version}\n" in context.with_name("Dockerfile").read_text()


def test_it_predicts_with_a_read_only_root(url: str, pngs: list[bytes], image: Stage) -> None:
    status, content = request(f"{url}/predict", pngs[0])
    assert (status, json.loads(content)["model"]["version"]) == (200, "1")
    assert image.path("/home/bentoml/var/predictions.db").exists()
    refused = image.run("sh", "-c", "touch $BENTO_PATH/x || echo refused", read_only=True)
    assert refused.stdout.splitlines()[-1] == "refused"


def test_its_files_belong_to_a_user_without_a_password(image: Stage) -> None:
    assert image.user == "1034:1034"
    assert image.run("id", "-u").stdout == "1034\n"


@pytest.mark.parametrize("manifest", ["kubernetes/deployment.yaml", "cloudrun.yaml", "compose.yaml"])
def test_every_probe_of_a_manifest_is_answered(url: str, manifest: str) -> None:
    paths = paths_of_probes(file(manifest).read_text())
    assert "/readyz" in paths
    assert {path: request(url + path)[0] for path in paths} == dict.fromkeys(paths, 200)
