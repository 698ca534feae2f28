"""A model package into BentoML's store, and a bento around it. Knows folders and BentoML, not MLflow."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY
from fashion.model import package

NAME = "fashion-classifier"
LEFT_OUT = shutil.ignore_patterns("__pycache__", "training", "*.pyc")


class BuildFailed(RuntimeError):
    """BentoML could not build. The message is its last line."""


@dataclass(frozen=True)
class Picture:
    """One picture of the gallery."""

    label: str
    png: bytes


def store_model(folder: Path, *, name: str, version: int, labels: Mapping[str, str]) -> str:
    """Put a package into BentoML's model store, and return its tag. The same package again is the same model.

    Raises:
        fashion.model.package.DamagedPackage: the package is not what was packed.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    package.read(folder)
    digest = hashlib.sha256((folder / package.MANIFEST).read_bytes()).hexdigest()[:12]
    tag = f"{_plain(name)}:v{version}-{digest}"
    try:
        stored = bentoml.models.get(tag)
        package.read(Path(stored.path))
    except NotFound:
        pass
    except package.DamagedPackage:
        bentoml.models.delete(tag)
    else:
        return tag
    with bentoml.models.create(tag, labels={key: _label(value) for key, value in labels.items()}) as model:
        for path in folder.iterdir():
            shutil.copy(path, model.path)
    return tag


def build(deployment: Mapping[str, Any], *, version: str, gallery: Sequence[Picture]) -> str:
    """Build a bento of the service as it is in this repository, and return its tag.

    Args:
        deployment: what the service reads as `deployment.json`.
        version: of the bento.

    Raises:
        BuildFailed: BentoML refuses.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        shutil.copytree(REPOSITORY / "fashion", context / "fashion", ignore=LEFT_OUT)
        service = context / "bentos" / "classifier"
        shutil.copytree(REPOSITORY / "bentos" / "classifier", service, ignore=LEFT_OUT)
        shutil.copy(REPOSITORY / "bentos" / "__init__.py", context / "bentos")
        shutil.copy(REPOSITORY / "requirements-serve.lock", context / "requirements.txt")
        shutil.copy(REPOSITORY / "README.md", context)
        (service / "deployment.json").write_text(json.dumps(deployment, indent=1) + "\n")
        _write_gallery(service / "gallery", gallery)
        # A process of its own: the service is imported from the copy, not from the repository.
        command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", "--version", version]
        command += ["--bentofile", str(service / "bentofile.yaml"), str(context)]
        done = subprocess.run(command, cwd=context, capture_output=True, text=True)
    if done.returncode != 0:
        raise BuildFailed((done.stderr or done.stdout).strip().splitlines()[-1])
    return f"{NAME}:{version}"


def _write_gallery(folder: Path, gallery: Sequence[Picture]) -> None:
    folder.mkdir()
    listed = [{"url": f"/gallery/{index}.png", "label": each.label} for index, each in enumerate(gallery)]
    (folder / "gallery.json").write_text(json.dumps(listed))
    for index, each in enumerate(gallery):
        (folder / f"{index}.png").write_bytes(each.png)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9_.-]", "-", name.lower())


def _label(value: str) -> str:
    return " ".join(str(value).split())[:200]
