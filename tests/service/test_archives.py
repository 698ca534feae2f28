"""Archives of bentos: written to a folder or a bucket, and served by a machine that has nothing else."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import bucket
from support.served import free_port

from bentos import archives
from bentos.archives import ArchiveError
from fashion.home import REPOSITORY
from fashion.model.package import Package

pytestmark = pytest.mark.slow

BUILD = """
import sys
from pathlib import Path
from bentos import building
from bentos.classifier.deployment import bento_files
from fashion.config.compose import as_dict, compose, load_as
from fashion.config.serve import ServeConfig

settings = load_as(ServeConfig, compose(["serve.gallery=0"], root="serve")).serve
tag = building.store_model(Path(sys.argv[1]), name="fashion-classifier", version=1, labels={})
model = {"name": "fashion-classifier", "version": "1", "tag": tag, "summary": "", "lineage": {}}
deployment = {"settings": as_dict(settings), "model": model, "shadow": None}
print(building.build("classifier", bento_files(deployment, []), version="v1"))
"""
EXPORT = "import sys; from bentos import archives; print(*archives.export(*sys.argv[1:]).__dict__.values())"


def python(code: str, *arguments: str, home: Path) -> str:
    """Run Python with a BentoML home, which BentoML reads once in a process."""
    environment = {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def built(tiny_package: Package, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A BentoML home with a bento, and its tag."""
    folder = tmp_path_factory.mktemp("built")
    home = folder / "bentoml"
    return home, python(BUILD, str(tiny_package.folder), home=home)


@pytest.fixture(scope="module")
def archive(built: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of it in a folder."""
    home, tag = built
    folder = tmp_path_factory.mktemp("archives")
    address, sha256, size = python(EXPORT, tag, str(folder), home=home).split()
    assert address == f"{folder}/fashion-classifier-v1.bento"
    assert len(sha256) == 64
    assert Path(address).stat().st_size == int(size)
    assert not (home / "bentos" / "fashion-classifier" / "v1" / "models").exists()
    return Path(address)


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with bucket.serve("team") as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield address


def test_importing_it_again_changes_nothing(archive: Path, tmp_path: Path) -> None:
    code = "import sys; from bentos import archives as a; print(*(a.import_archive(sys.argv[1]) for _ in range(2)))"
    assert python(code, str(archive), home=tmp_path / "bentoml") == "fashion-classifier:v1 fashion-classifier:v1"
    assert len(list((tmp_path / "bentoml/models/fashion-classifier").glob("v1-*/model.onnx"))) == 1


def test_a_machine_with_an_empty_store_serves_an_archive_of_a_bucket(
    built: tuple[Path, str], gcs: str, pngs: list[bytes], tmp_path: Path
) -> None:
    home, tag = built
    address = python(EXPORT, tag, "gs://team/bentos", home=home).split()[0]
    assert address == "gs://team/bentos/fashion-classifier-v1.bento"
    url, output = f"http://127.0.0.1:{free_port()}", tmp_path / "service.log"
    environment = {**os.environ, "BENTOML_HOME": str(tmp_path / "bentoml"), "FASHION_HOME": str(tmp_path / "var")}
    command = [sys.executable, "-m", "fashion", "serve", "--bento", address, "--port", url.rpartition(":")[2]]
    with output.open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
    try:
        assert predict(url, pngs[0], process)["model"]["version"] == "1", output.read_text()
        assert f"{tag} on {url}" in output.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()


def predict(url: str, png: bytes, process: subprocess.Popen[bytes]) -> Any:
    """The answer for a picture, once the service is up."""
    request = urllib.request.Request(f"{url}/predict", png, {"content-type": "image/png"})
    for _ in range(1200):
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
        if process.poll() is not None:
            break
        time.sleep(0.1)
    return {"model": {"version": "none answered"}}


@pytest.mark.fault("damaged archive of a bento")
def test_what_is_no_archive_is_one_sentence(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    with pytest.raises(ArchiveError, match=r"none\.bento cannot be read: .* holds no none\.bento"):
        archives.import_archive(str(tmp_path / "none.bento"))
    damaged = tmp_path / "damaged.bento"
    damaged.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ArchiveError, match="is not an intact archive of a bento"):
        archives.import_archive(str(damaged))
    damaged.write_bytes(b"not an archive")
    with pytest.raises(ArchiveError, match="is not an intact archive of a bento"):
        archives.import_archive(str(damaged))


def test_an_address_that_is_none_is_one_sentence(built: tuple[Path, str]) -> None:
    home, tag = built
    code = f"""
from bentos import archives
try:
    archives.export({tag!r}, "ftp://elsewhere")
except archives.ArchiveError as error:
    print(error)
"""
    assert python(code, home=home).endswith("or az://container/prefix; see FASHION_BENTOS")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fashion-classifier:latest", False),
        ("gs://bucket/x.bento", True),
        ("./x.bento", True),
        ("x.bento", False),
        ("fashion-classifier", False),
    ],
)
def test_an_address_is_told_from_a_tag(text: str, expected: bool) -> None:
    assert archives.is_archive(text) is expected
