"""Building bentos: what is put into one, and a second one beside the first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import faults
from support.served import Served

from bentos import building
from bentos.classifier.deployment import LabelledPicture, bento_files, read_gallery, state_folder
from fashion.home import REPOSITORY
from fashion.model.package import DamagedPackage, Package

ECHO_SERVICE = '''"""Answers what it was sent, with what all bentos share."""

from pathlib import Path

import bentoml

from bentos.web.responses import ErrorAnswer, ErrorDetail, adapter

GREETING = (Path(__file__).parent / "data" / "greeting.txt").read_text()


@bentoml.service(name="echo", http={"host": "127.0.0.1"})
class Echo:
    @bentoml.api(route="/echo")
    def echo(self, text: str) -> str:
        return GREETING + text

    @bentoml.api(route="/readyz")
    def readyz(self) -> str:
        return adapter(ErrorAnswer).dump_json(ErrorAnswer(ErrorDetail("none", "ready", "none"))).decode()
'''
ECHO_FILE = """service: bentos.echo.service:Echo
name: echo
include: ["fashion/", "bentos/", "README.md"]
python:
  requirements_txt: requirements.txt
  lock_packages: false
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """BentoML's home, empty, for the processes that are started."""
    home = tmp_path / "bentoml"
    monkeypatch.setenv("BENTOML_HOME", str(home))
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    return home


@pytest.fixture
def bentos(tmp_path: Path) -> Path:
    """A copy of `bentos/` with a second bento."""
    folder = tmp_path / "bentos"
    shutil.copytree(REPOSITORY / "bentos", folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "echo").mkdir()
    (folder / "echo" / "__init__.py").touch()
    (folder / "echo" / "service.py").write_text(ECHO_SERVICE)
    (folder / "echo" / "bentofile.yaml").write_text(ECHO_FILE)
    return folder


def run(code: str, store: Path, folder: Path = REPOSITORY) -> str:
    """Run Python in a process of its own: BentoML reads its home once."""
    environment = {**os.environ, "BENTOML_HOME": str(store), "PYTHONPATH": str(folder)}
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


@pytest.mark.slow
def test_a_second_bento_is_built_beside_the_first_and_served(
    tiny_package: Package, store: Path, bentos: Path, tmp_path: Path
) -> None:
    tag = run(
        "from pathlib import Path; from bentos.building import store_model;"
        f"print(store_model(Path({str(tiny_package.folder)!r}), name='Fashion classifier', version=1, labels={{}}))",
        store,
    )
    assert tag.startswith("fashion-classifier:v1-")
    deployment = {
        "settings": {"workers": 1, "shadow": None, "gallery": 0},
        "model": {"name": "fashion-classifier", "version": "1", "tag": tag},
        "shadow": None,
    }
    first = building.build("classifier", bento_files(deployment, []), version="v1", bentos=bentos)
    second = building.build("echo", {"data/greeting.txt": b"hello "}, version="v1", bentos=bentos)
    assert (first, second) == ("fashion-classifier:v1", "echo:v1")
    listed = json.loads(
        run("import bentoml, json; print(json.dumps([str(bento.tag) for bento in bentoml.list()]))", store)
    )
    assert set(listed) == {first, second}
    sources = store / "bentos" / "fashion-classifier" / "v1" / "src"
    modules = "bentos.classifier.app, fashion.predictions.postgres, fashion.predictions.firestore"
    modules += ", fashion.predictions.shipper, fashion.storage.gcs, fashion.storage.object_store"
    origin = run(f"import {modules}; print(fashion.__file__)", store, sources)  # no room that was left out is missed
    assert Path(origin).is_relative_to(sources)
    sources = store / "bentos" / "echo" / "v1" / "src"
    assert {path.name for path in (sources / "bentos").iterdir()} == {"__init__.py", "echo", "web"}
    assert not {path.name for path in (sources / "fashion").iterdir()} & set(building.LEFT_OUT)
    served = Served(second, {**os.environ, "BENTOML_HOME": str(store)}, tmp_path / "service.log")
    try:
        status, _, content = served.request("POST", "/echo", b'{"text": "you"}', {"content-type": "application/json"})
        assert (status, content) == (200, b"hello you")
    finally:
        served.stop()


def test_a_bento_that_cannot_be_built_is_one_sentence(store: Path, bentos: Path) -> None:
    with pytest.raises(building.BuildFailed, match=r"No such file.*greeting\.txt"):
        building.build("echo", {}, version="v1", bentos=bentos)


@pytest.mark.fault("damaged bentos and models in BentoML's store")
def test_damaged_bentos_are_put_aside_and_the_next_build_works(
    tiny_package: Package, store: Path, bentos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tiny_package.folder is not None
    build = "from bentos.building import store_model; from pathlib import Path;"
    build += f"print(store_model(Path({str(tiny_package.folder)!r}), name='m', version=1, labels={{}}))"
    tag = run(build, store)
    model = store / "models" / tag.replace(":", "/")
    (model / "model.yaml").unlink()  # as where a process was killed while it stored it
    assert run(build, store) == tag
    assert (model / "model.yaml").exists()
    bento = store / "bentos" / "echo" / "v0" / "bento.yaml"
    bento.parent.mkdir(parents=True)
    bento.write_text("service: bentos.echo\nname: echo\nvers")
    unfinished = store / "bentos" / "echo" / "v00"  # another process may be writing it
    unfinished.mkdir()
    assert building.build("echo", {"data/greeting.txt": b"hello "}, version="v1", bentos=bentos) == "echo:v1"
    assert not bento.parent.exists()
    assert unfinished.exists()
    assert len(list((store / "damaged").iterdir())) == 2
    assert "echo:v0 is damaged (" in capsys.readouterr().err


@pytest.mark.fault("the disk is full while a bento is built")
def test_a_full_disk_while_building_is_one_sentence(
    store: Path, bentos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in faults.at("bentoml._internal.bento.bento:Bento.save", tmp_path, action="full").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(building.BuildFailed, match=r"No space left on device; free some space \(`fashion gc`"):
        building.build("echo", {"data/greeting.txt": b"hello "}, version="v1", bentos=bentos)
    assert (tmp_path / "done").exists()
    assert building.build("echo", {"data/greeting.txt": b"hello "}, version="v1", bentos=bentos) == "echo:v1"


@pytest.mark.fault("damaged package at build time")
def test_a_damaged_package_is_not_stored(tiny_package: Package, tmp_path: Path) -> None:
    assert tiny_package.folder is not None
    shutil.copytree(tiny_package.folder, tmp_path / "model")
    (tmp_path / "model" / "model.onnx").write_bytes(b"")
    with pytest.raises(DamagedPackage):
        building.store_model(tmp_path / "model", name="fashion-classifier", version=1, labels={})


EXCHANGE = """
import hashlib, json, pathlib, sys
import bentoml
from bentos.building import is_stored, store_model
package = pathlib.Path(sys.argv[1])
digest = hashlib.sha256((package / "package.json").read_bytes()).hexdigest()
tag = store_model(package, name="m", version=1, labels={})
assert is_stored(tag, digest)
stored = pathlib.Path(bentoml.models.get(tag).path)
content = (stored / "model.onnx").read_bytes() + b"0"
manifest = json.loads((stored / "package.json").read_text())
manifest["files"]["model.onnx"] = hashlib.sha256(content).hexdigest()
(stored / "model.onnx").write_bytes(content)
(stored / "package.json").write_text(json.dumps(manifest))
assert not is_stored(tag, digest)
assert store_model(package, name="m", version=1, labels={}) == tag
assert is_stored(tag, digest)
assert not is_stored("m:v2", digest)
"""


@pytest.mark.slow
@pytest.mark.fault("a model and its checksum are edited together in BentoML's store")
def test_a_stored_package_that_was_exchanged_is_stored_anew(tiny_package: Package, store: Path) -> None:
    run(EXCHANGE.replace("sys.argv[1]", repr(str(tiny_package.folder))), store)


@pytest.mark.fault("a bento is served on another machine, or from a copied home")
def test_a_bento_keeps_its_state_where_it_is_served(tmp_path: Path) -> None:
    home = tmp_path / "copy"
    (home / "bentoml").mkdir(parents=True)
    (home / "home.json").write_text("{}")
    assert state_folder({"FASHION_HOME": "/srv/state", "BENTOML_HOME": str(home / "bentoml")}) == "/srv/state"
    assert state_folder({"BENTOML_HOME": str(home / "bentoml")}) == str(home)
    assert state_folder({"BENTOML_HOME": str(tmp_path / "elsewhere")}) == str(tmp_path / "elsewhere" / "var")


def test_the_gallery_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = bento_files({}, [LabelledPicture("Coat", b"1"), LabelledPicture("Bag", b"2")])
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    pictures = read_gallery(tmp_path / "gallery")
    assert [(picture.url, picture.label) for picture in pictures] == [
        ("/gallery/0.png", "Coat"),
        ("/gallery/1.png", "Bag"),
    ]
    assert (tmp_path / "gallery/1.png").read_bytes() == b"2"
    assert read_gallery(tmp_path) == ()
