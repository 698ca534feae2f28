"""From the registry to a bento that serves: which version, what is in it, and that it runs on its own requirements."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.machine import Machine, twin
from support.served import Served

from bentos.classifier import known_pictures
from bentos.classifier.deployment import KNOWN_PICTURES
from bentos.classifier.known_pictures import KnownPictures
from fashion.data.dataset import Dataset
from fashion.home import REPOSITORY
from fashion.images import image_store
from fashion.model import package

HEAVY = ("torch", "timm", "mlflow", "metaflow", "evidently", "optuna", "lightning-fabric", "matplotlib", "scipy")


def bentoml(machine: Machine, *arguments: str, python: str = sys.executable) -> str:
    done = subprocess.run(
        [python, "-m", "bentoml", *arguments], env=machine.serving(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def folder(challenged: Machine, bento: str) -> Path:
    """Where the bento lies."""
    return challenged.root / "bentoml" / "bentos" / bento.replace(":", "/")


def test_the_champion_is_deployed_with_its_lineage(challenged: Machine, bento: str, folder: Path) -> None:
    deployment = json.loads((folder / "src/bentos/classifier/deployment.json").read_text())
    assert str(challenged.root) not in json.dumps(deployment)  # it is served on other machines too
    assert deployment["model"]["version"] == "1"
    assert deployment["shadow"]["version"] == "2"
    assert [each["picture"] for each in deployment["known"]] == [f"{number}.png" for number in range(20)]
    assert len(deployment["model"]["digest"]) == 64
    assert deployment["model"]["lineage"]["metaflow_run_id"].startswith("TrainFlow/")
    stored = json.loads(bentoml(challenged, "models", "get", deployment["model"]["tag"], "-o", "json"))
    assert stored["labels"]["model_version"] == "1"
    assert stored["labels"]["git_commit"]
    assert f"bento {bento} serves fashion-classifier version 1" in challenged.deployment_output


def test_the_model_in_the_store_is_the_registered_package(challenged: Machine, bento: str) -> None:
    (served, shadow) = sorted((challenged.root / "bentoml/models/fashion-classifier").glob("v*"))
    assert package.read(served).lineage["metaflow_run_id"].startswith("TrainFlow/")
    assert served.name.startswith("v1-")
    assert shadow.name.startswith("v2-")


def test_a_version_is_chosen_by_number(challenged: Machine) -> None:
    challenged.flow("run", "version=2", "serve.gallery=0", "serve.coverage=0.95", name="deploy_flow")
    deployed = challenged.runs("DeployFlow")[-1].data
    assert deployed.bento.startswith("fashion-classifier:v2-")
    assert deployed.deployment["settings"]["shadow"] is None
    registered = challenged.connect().get_model_version("fashion-classifier", "2")
    assert registered.tags["serve.coverage"] == "0.95"  # what drift watches


def test_known_pictures_are_test_pictures_that_the_gallery_does_not_show(
    challenged: Machine, whole_dataset: Dataset
) -> None:
    words = ["serve.log.images=true", "serve.gallery=10"]
    output = challenged.flow("run", *words, name="deploy_flow")
    assert "no known pictures" not in output
    name, _, version = challenged.runs("DeployFlow")[-1].data.bento.partition(":")
    folder = challenged.root / "bentoml/bentos" / name / version / "src/bentos/classifier"
    known = KnownPictures.read(folder)
    assert known is not None
    assert len(known.sha256) == len(set(known.sha256)) >= known_pictures.LEAST
    test = whole_dataset.test
    truth = dict(zip(map(image_store.digest, test.images), test.labels.tolist(), strict=True))
    assert [truth[each] for each in known.sha256] == known.labels.tolist()
    shown = [np.asarray(Image.open(path)) for path in (folder / "gallery").glob("*.png")]
    assert len(shown) == 10
    assert not set(map(image_store.digest, shown)) & set(known.sha256)
    assert (folder / KNOWN_PICTURES).stat().st_size < 500_000


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("version=9", "has no version or alias '9'; it has versions 2, 1 and aliases "),
        ("alias=best", "has no version or alias 'best'"),
        ("tracking.registered_model=other", "no version of other is registered yet: run `make train` first"),
    ],
)
def test_what_is_not_registered_is_one_sentence(challenged: Machine, word: str, sentence: str) -> None:
    process = challenged.start("run", word, name="deploy_flow")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"error: {'fashion-classifier ' if 'has' in sentence[:4] else ''}{sentence}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("serve.workers=0", "serve: workers must be between 1 and 64, got 0"),
        ("serve.worker=2", "serve.worker=2: there is no key 'worker'; serve has canary, "),
        ("version=x", "version: input should be a valid integer"),
        ("serve.limits.files=0", "serve.limits: files must be at least 1, got 0"),
        ("serve.log.acknowledge=never", "serve.log.acknowledge must be 'local' or 'remote', got 'never'"),
    ],
)
@pytest.mark.slow
def test_wrong_words_are_refused_before_anything_starts(tmp_path: Path, word: str, sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "flows" / "deploy_flow.py"), "run", word],
        cwd=tmp_path,
        env={**os.environ, "FASHION_HOME": str(tmp_path / "var")},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"error: {sentence}")


@pytest.mark.fault("a registered model and its checksum are edited together")
def test_an_exchanged_package_is_not_deployed(challenged: Machine, tmp_path: Path) -> None:
    from fashion.registry import versions

    challenged.connect()
    version = versions.get("1")
    stored = Path(versions.fetch(version, tmp_path).folder or "")
    assert stored.is_dir()
    originals = [
        path
        for path in (challenged.root / "mlflow-artifacts").rglob("package.json")
        if package.read(path.parent).lineage["mlflow_run_id"] == version.mlflow_run_id
    ]
    files = [originals[0].parent / name for name in (package.MODEL, package.MANIFEST)]
    model, manifest = (file.read_bytes() for file in files)
    exchanged = model[:-1] + bytes([model[-1] ^ 1])
    sums = [hashlib.sha256(content).hexdigest().encode() for content in (model, exchanged)]
    try:
        files[0].write_bytes(exchanged)
        files[1].write_bytes(manifest.replace(*sums))
        digest = package.read(files[0].parent).digest
        process = challenged.start("run", name="deploy_flow")
        said, _ = process.communicate(timeout=300)
    finally:
        files[0].write_bytes(model)
        files[1].write_bytes(manifest)
    assert process.returncode == 1
    assert "error: version 1, stored at" in said
    assert f"its package has the digest {digest}, and {version.tags['package.digest']} was registered" in said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def dockerfile(challenged: Machine, bento: str) -> str:
    """What `bentoml containerize` would hand to Docker."""
    target = challenged.root / "Dockerfile"
    code = f"import bentoml, os; os.chdir('/'); bentoml.container.get_containerfile({bento!r}, {str(target)!r})"
    done = subprocess.run([sys.executable, "-c", code], env=challenged.serving(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target.read_text()


class TestContainer:
    def test_starts_from_a_slim_image(self, dockerfile: str) -> None:
        (image,) = re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)
        assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64}", image)

    def test_runs_as_a_user_without_privileges(self, dockerfile: str) -> None:
        assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)[-1] == "1034:1034"  # BentoML's number
        assert dockerfile.rindex("USER 1034") < dockerfile.rindex("ENTRYPOINT")

    def test_has_a_health_check_on_readiness(self, dockerfile: str) -> None:
        assert "HEALTHCHECK" in dockerfile
        assert "/readyz" in dockerfile

    def test_is_reached_from_outside_its_container(self, dockerfile: str) -> None:
        assert "ENV BENTOML_HOST=0.0.0.0" in dockerfile  # left alone, the service binds loopback

    def test_keeps_its_state_in_a_volume(self, dockerfile: str) -> None:
        assert "ENV FASHION_HOME=/home/bentoml/var " in dockerfile
        assert "VOLUME /home/bentoml/var" in dockerfile

    def test_installs_pinned_requirements_with_hashes(self, folder: Path) -> None:
        lines = (folder / "env/python/requirements.txt").read_text().splitlines()
        required = [line for line in lines if re.match(r"[a-z]", line)]
        assert len(required) > 20
        assert all(re.match(r"[\w.-]+==\S+", line) for line in required)
        assert sum("--hash=sha256:" in line for line in lines) >= len(required)

    def test_needs_no_training_library(self, folder: Path) -> None:
        lines = (folder / "env/python/requirements.txt").read_text().splitlines()
        names = {line.partition("==")[0] for line in lines}
        assert not names & set(HEAVY)
        assert not list((folder / "src").rglob("training"))


@pytest.fixture(scope="session")
def clean_python(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A new environment with nothing but the bento's own requirements."""
    venv = tmp_path_factory.mktemp("serving") / "venv"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True)
    command = [uv, "pip", "install", "--quiet", "--python", str(venv / "bin/python"), "-r"]
    subprocess.run([*command, str(folder / "env/python/requirements.txt")], check=True)
    return str(venv / "bin/python")


def test_serves_and_predicts_on_its_own_requirements(
    challenged: Machine, bento: str, clean_python: str, pngs: list[bytes], service: Served, tmp_path: Path
) -> None:
    listed = subprocess.run(
        [clean_python, "-c", "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"],
        capture_output=True,
        text=True,
    ).stdout.split()
    assert "bentoml" in listed
    assert not set(HEAVY) & set(listed)
    venv = Path(clean_python).parents[1]
    files = {(each.st_dev, each.st_ino): each.st_blocks * 512 for each in map(os.lstat, venv.rglob("*"))}
    assert sum(files.values()) <= 350 * 2**20
    served = Served(bento, challenged.serving(), tmp_path / "service.log", python=clean_python)
    try:
        told = served.predict(pngs[0], "?explain=true")
        assert told["probabilities"] == service.predict(pngs[0])["probabilities"]
        assert told["heat_map"].startswith("data:image/png")
    finally:
        assert served.stop() == 0


def test_a_canary_answers_and_is_compared_on_the_bentos_own_requirements(
    challenged: Machine, clean_python: str, pngs: list[bytes], tmp_path: Path
) -> None:
    machine = twin(challenged, tmp_path)
    words = ["serve.canary=2", "serve.canary_share=0.5", "deploy.force_reason='to see it'", "serve.gallery=0"]
    assert "version 2 answers as canary of version 1" in machine.flow("run", *words, name="deploy_flow")
    deployed = machine.runs("DeployFlow")[-1].data
    assert all(0 <= share < 1 for share in deployed.canary["sure_wrong"])
    served = Served(deployed.bento, machine.serving(), tmp_path / "service.log", python=clean_python)
    try:
        kind = {"Content-Type": "image/png"}
        asked = [
            served.request("POST", "/predict", pngs[0], {**kind, "X-Client": f"person {number}"})
            for number in range(20)
        ]
        answers = [json.loads(content) for _, _, content in asked]
        assert {answer["model"]["version"] for answer in answers} == {"1", "2"}
        said = {"prediction_id": answers[0]["prediction_id"], "label": answers[0]["label"]}
        served.json("POST", "/feedback", said)
        status, _, page = served.request("GET", "/monitoring")
        assert status == 200
        assert "Version 2 answers 50% of the clients" in page.decode()
        assert "The labels do not suffice yet." in page.decode()
    finally:
        assert served.stop() == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc tells what a process has loaded")
def test_the_process_that_serves_has_loaded_no_training_library(service: Served) -> None:
    (worker,) = service.workers()
    loaded = Path(f"/proc/{worker}/maps").read_text()
    assert "onnxruntime" in loaded
    for name in ("torch", "scipy", "pandas", "matplotlib", "pyarrow"):
        assert f"/site-packages/{name}/" not in loaded, name


class TestEnd:
    """What happens to a service whose end has come."""

    def test_sigterm_answers_what_was_taken_and_exits_with_0(
        self, challenged: Machine, bento: str, pngs: list[bytes], tmp_path: Path
    ) -> None:
        import concurrent.futures

        home = tmp_path / "var"
        served = Served(bento, challenged.serving(FASHION_HOME=str(home)), tmp_path / "service.log")
        with concurrent.futures.ThreadPoolExecutor(32) as pool:
            waiting = [pool.submit(_ask, served, pngs[row % 100]) for row in range(400)]
            while sum(each.done() for each in waiting) < 50:
                time.sleep(0.005)
            assert served.stop() == 0
            answers = [each.result() for each in waiting]
        from fashion.predictions.log import PredictionLog

        answered = [each for each in answers if each is not None]
        assert len(answered) >= 50
        assert all(each["status"] == 200 for each in answered)
        with PredictionLog(home / "predictions.db") as log:
            assert all(log.get(each["prediction_id"]) for each in answered)
        with pytest.raises(OSError, match="refused"):
            served.request("GET", "/readyz")

    @pytest.mark.fault("SIGTERM with requests under way")
    def test_a_request_that_was_under_way_at_sigterm_is_answered(
        self, challenged: Machine, bento: str, pngs: list[bytes], tmp_path: Path
    ) -> None:
        import http.client

        from fashion.predictions.log import PredictionLog

        home = tmp_path / "var"
        served = Served(bento, challenged.serving(FASHION_HOME=str(home)), tmp_path / "service.log")
        client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
        client.putrequest("POST", "/predict")
        for name, value in (("content-type", "image/png"), ("content-length", str(len(pngs[0])))):
            client.putheader(name, value)
        client.endheaders(pngs[0][:50])
        time.sleep(0.5)  # the service has begun to read it
        os.kill(served.process.pid, signal.SIGTERM)
        time.sleep(0.5)  # and has heard that it is to end
        client.send(pngs[0][50:])
        answer = client.getresponse()
        told = json.loads(answer.read())
        assert answer.status == 200
        assert served.process.wait(30) == 0
        with PredictionLog(home / "predictions.db") as log:
            assert log.get(told["prediction_id"])

    @pytest.mark.fault("kill -9 of a service's worker")
    def test_a_killed_worker_is_replaced_and_has_lost_nothing(
        self, challenged: Machine, bento: str, pngs: list[bytes], tmp_path: Path
    ) -> None:
        from fashion.predictions.log import PredictionLog

        home = tmp_path / "var"
        served = Served(bento, challenged.serving(FASHION_HOME=str(home)), tmp_path / "service.log")
        try:
            ids = []
            for png in pngs[:60]:
                ids.append(served.predict(png)["prediction_id"])
            (worker,) = served.workers()
            os.kill(worker, signal.SIGKILL)
            deadline = time.monotonic() + 60
            told: Any = None
            while told is None and time.monotonic() < deadline:
                told = _ask(served, pngs[0])
            assert told["status"] == 200
            assert served.workers() != [worker]
            with PredictionLog(home / "predictions.db") as log:
                assert all(log.get(each) for each in ids)
        finally:
            served.kill()


def _ask(served: Served, png: bytes) -> Any:
    """An answer with its status, or None where the connection was refused or cut before one came."""
    try:
        status, _, content = served.request("POST", "/predict", png, {"content-type": "image/png"})
    except OSError:
        return None
    return {"status": status, **json.loads(content)}
