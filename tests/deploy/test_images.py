"""The images of the flows: their Dockerfiles are clean, their steps work, and what they hold runs the flows."""

import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support import dockerfile, postgres
from support.dockerfile import Stage, parse
from support.manifests import DEPLOY, load
from support.served import free_port

from fashion.home import REPOSITORY
from fashion.model.package import Package

pytestmark = pytest.mark.slow

NAMES = ("train", "flows")
REGISTER = """
from fashion.home import prepare_environment
from fashion.predictions.log import PredictionLog
from fashion.registry import champions, tracking, versions
home = prepare_environment()
tracking.connect(home)
run = tracking.start_run(tracking.get_or_create_experiment(home, "fashion"), "tiny", {})
address = versions.log_package(run, home.root / "package")
version = versions.register(address, run_id=run, tags={"summary": "tiny", "mlflow_run_id": run})
champions.promote(version, reason="a test")
PredictionLog(home.predictions).close()
"""
BUILD_NETWORK = """
import torch
from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.training.models import build
settings = load_train_config(compose(["architecture=resnet"]))
print(tuple(build(settings.architecture, channels=1, size=28, num_classes=10)(torch.zeros(2, 1, 28, 28)).shape))
"""


def text(name: str) -> str:
    return (DEPLOY / f"{name}.Dockerfile").read_text()


def image(name: str, folder: Path) -> Stage:
    dockerfile.require_root()
    return dockerfile.build(text(name), REPOSITORY, folder, args={"GIT_COMMIT": "0123abc"})


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return image("train", tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory, tiny_package: Package) -> Stage:
    """With a registered champion and an empty prediction log in its volume."""
    stage = image("flows", tmp_path_factory.mktemp("flows"))
    assert tiny_package.folder is not None
    shutil.copytree(tiny_package.folder, stage.path("/home/fashion/var/package"), copy_function=shutil.copyfile)
    stage.path("/home/fashion/var/package").chmod(0o755)
    done = stage.run("python", "-c", REGISTER)
    assert done.returncode == 0, done.stdout
    return stage


@pytest.mark.parametrize("name", NAMES)
def test_hadolint_finds_nothing(name: str) -> None:
    path = DEPLOY / f"{name}.Dockerfile"
    program = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(program), "--no-color", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_the_base_image_is_pinned_by_digest_and_uv_by_the_lock(name: str) -> None:
    bases = [each.value for each in parse(text(name)) if each.name == "FROM" and not each.value.startswith("base")]
    assert [re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64} AS base", base) for base in bases] != []
    locked = re.search(r"^uv==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert f"ARG UV_VERSION={locked[1]}\n" in text(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_the_code_installs_no_package_again(name: str) -> None:
    instructions = parse(text(name))
    last_install = max(index for index, each in enumerate(instructions) if "uv pip sync" in each.value)
    code = [index for index, each in enumerate(instructions) if each.name == "COPY" and "/app/" in each.value]
    assert min(code) > last_install


@pytest.mark.parametrize("name", NAMES)
def test_the_build_context_holds_what_is_copied_and_nothing_else(name: str) -> None:
    lines = (DEPLOY / f"{name}.Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copies = [each.value.split()[:-1] for each in parse(text(name)) if each.name == "COPY" and not each.flags]
    assert {word.split("/")[0] for words in copies for word in words} == allowed


def test_what_only_gpus_need_is_left_out_on_request() -> None:
    lock = REPOSITORY / "requirements.lock"
    command = ["awk", "-f", str(DEPLOY / "without_cuda.awk"), str(lock)]
    left = re.findall(r"^([\w.-]+)==", subprocess.run(command, capture_output=True, text=True).stdout, re.MULTILINE)
    everything = re.findall(r"^([\w.-]+)==", lock.read_text(), re.MULTILINE)
    gone = set(everything) - set(left)
    assert {"torch", "torchvision", "triton", "nvidia-cublas", "nvidia-cudnn-cu13"} <= gone
    assert all(re.match(r"torch|torchvision|triton|nvidia-|cuda-", name) for name in gone)
    assert "nvidia-ml-py" in left
    assert len(left) > 250


class TestTrain:
    def test_its_command_trains_with_what_hydra_args_say(self, train: Stage) -> None:
        done = train.run(env={"HYDRA_ARGS": "training.num_epochs=-1"}, read_only=True)
        assert train.command == ("python", "/app/flows/train_flow.py", "run")
        assert (done.returncode, done.stdout) == (1, "error: training: num_epochs must be at least 1, got -1\n")

    def test_it_has_networks_and_torch(self, train: Stage) -> None:
        done = train.run("python", "-c", BUILD_NETWORK, read_only=True)
        assert done.stdout == "(2, 10)\n"


class TestFlows:
    def test_it_has_no_torch(self, flows: Stage) -> None:
        done = flows.run("python", "-c", "import torch")
        assert "ModuleNotFoundError: No module named 'torch'" in done.stdout

    def test_it_runs_as_a_numbered_user_who_can_change_no_code(self, flows: Stage) -> None:
        done = flows.run("sh", "-c", "id -u; touch /app/x || touch /opt/venv/x || touch /etc/x || echo refused")
        assert done.stdout.splitlines()[0] == "10001"
        assert done.stdout.splitlines()[-1] == "refused"

    def test_a_pod_of_metaflow_finds_all_it_would_install(self, flows: Stage) -> None:
        assert flows.env["METAFLOW_SKIP_INSTALL_DEPENDENCIES"] == "1"
        code = "import boto3, google.auth, google.cloud.storage, packaging, requests"
        script = f"mkdir metaflow && download-gcp-object --help && python -c '{code}' && rmdir metaflow"
        assert flows.run("bash", "-c", script).returncode == 0

    def test_deploy_flow_builds_a_bento_of_the_champion(self, flows: Stage) -> None:
        done = flows.run("python", "/app/flows/deploy_flow.py", "run", "serve.gallery=0", read_only=True)
        assert done.returncode == 0, done.stdout
        assert re.search(r"bento fashion-classifier:v1-\d+ serves fashion-classifier version 1", done.stdout)

    def test_drift_flow_is_its_command(self, flows: Stage) -> None:
        done = flows.run(env={"HYDRA_ARGS": "rows=1000"}, read_only=True)
        assert done.returncode == 0, done.stdout
        assert "insufficient_data" in done.stdout

    def test_predict_flow_predicts_pictures(self, flows: Stage, pngs: list[bytes]) -> None:
        folder = flows.path("/home/fashion/var/pictures")
        folder.mkdir(exist_ok=True)
        for index, png in enumerate(pngs[:3]):
            (folder / f"{index}.png").write_bytes(png)
        options = ["--images", "/home/fashion/var/pictures", "--output", "/home/fashion/var/predictions.parquet"]
        done = flows.run("python", "/app/flows/predict_flow.py", "run", *options, read_only=True)
        assert done.returncode == 0, done.stdout
        assert flows.path("/home/fashion/var/predictions.parquet").stat().st_size > 0

    def test_it_serves_mlflow_as_compose_starts_it(self, flows: Stage, tmp_path: Path) -> None:
        service = load("compose.yaml")["services"]["mlflow"]
        port = free_port()
        command = [word.replace("--port=5000", f"--port={port}") for word in service["command"]]
        with postgres.serve() as server:
            database = postgres.create_database(server, "mlflow").replace("postgresql:", "postgresql+psycopg:")
            environment = {**service["environment"], "MLFLOW_BACKEND_STORE_URI": database}
            with (tmp_path / "log").open("w") as log:
                process = flows.start(*command, env=environment, read_only=True, stdout=log.fileno())
            try:
                answered = wait_for_mlflow(port, process, tmp_path / "log")
            finally:
                process.terminate()
                process.wait(120)
        assert answered == {"mlflow:5000": 200, f"127.0.0.1:{port}": 200, "elsewhere.example": 403}


def wait_for_mlflow(port: int, process: "subprocess.Popen[str]", log: Path) -> dict[str, int]:
    """Once it is healthy: what it answers to a request by each name."""
    health = f"http://127.0.0.1:{port}/health"
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            if urllib.request.urlopen(health, timeout=5).status == 200:
                break
        except OSError:
            time.sleep(0.2)
    names = ("mlflow:5000", f"127.0.0.1:{port}", "elsewhere.example")
    return {
        name: status(f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1", name) for name in names
    }


def status(url: str, host: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"host": host}), timeout=30) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        with error:
            return error.code
