"""Bentos of a small package, made without flows: one is built, others are altered copies of it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fashion.home import REPOSITORY

NAME = "fashion-classifier"

_BUILD = """
import json, sys
from pathlib import Path
from bentos import building
from bentos.classifier.deployment import LabelledPicture, bento_files
from bentos.classifier.known_answers import known_answers
from fashion.config.compose import as_dict, compose, load_as
from fashion.config.serve import ServeConfig

folder, home, version, pictures, overrides, canary, known = json.loads(sys.argv[1])
tag = building.store_model(Path(folder), name="fashion-classifier", version=1, labels={})
served = building.stored_package(tag)
gallery = [LabelledPicture(label, Path(path).read_bytes()) for label, path in pictures]
settings = as_dict(load_as(ServeConfig, compose(overrides, root=ServeConfig.root)).serve)
model = {"name": "fashion-classifier", "version": "1", "tag": tag, "digest": served.digest}
model.update(summary="", lineage={})
deployment = {"settings": settings, "model": model, "shadow": None, "home": home}
if canary is not None:
    tried = building.store_model(Path(canary[0]), name="fashion-classifier", version=2, labels={})
    digest = building.stored_package(tried).digest
    deployment["canary"] = {**model, "version": "2", "tag": tried, "digest": digest}
    deployment["canary"] |= {"experiment": canary[1], "sure_wrong": [0.01, 0.02]}
deployment["known"] = known_answers(served, gallery)
known = Path(known).read_bytes() if known else None
print(building.build("classifier", bento_files(deployment, gallery, known), version=version))
"""


def environment(home: Path, **more: str) -> dict[str, str]:
    """Variables of processes whose state is in `home`."""
    prefixes = ("FASHION_", "BENTOML", "PROMETHEUS", "OTEL")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    own = {"FASHION_HOME": str(home), "BENTOML_HOME": str(home / "bentoml"), "BENTOML_DO_NOT_TRACK": "True"}
    return {**inherited, **own, **more}


def build(
    package: Path,
    home: Path,
    *,
    version: str = "v1",
    pictures: Sequence[bytes] = (),
    overrides: Sequence[str] = (),
    canary: tuple[Path, dict[str, Any]] | None = None,
    known: bytes | None = None,
) -> str:
    """Build a bento of a package as `flows/deploy_flow.py` does, and return its tag.

    Args:
        package: folder of the model package.
        home: of the state.
        version: of the bento.
        pictures: of its gallery, as PNG.
        overrides: of `configs/serve.yaml`.
        canary: package of version 2, and the fields of its experiment.
        known: of `KnownPictures.to_npz`.
    """
    home.mkdir(parents=True, exist_ok=True)
    gallery = []
    for number, png in enumerate(pictures):
        path = home / f"picture-{number}.png"
        path.write_bytes(png)
        gallery.append(("picture", str(path)))
    tried = None if canary is None else [str(canary[0]), canary[1]]
    if known is not None:
        (home / "known").write_bytes(known)
    to_know = None if known is None else str(home / "known")
    given = json.dumps([str(package), str(home), version, gallery, list(overrides), tried, to_know])
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, given], cwd=REPOSITORY, env=environment(home), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def copy(
    home: Path, tag: str, version: str, alter: Callable[[dict[str, Any]], None], *, manifest_bytes: int | None = None
) -> str:
    """Copy a bento under another version, make it the latest, and return its tag.

    Args:
        home: of both.
        tag: of the bento.
        version: of the copy.
        alter: changes the deployment.
        manifest_bytes: cut the manifest off after this many.
    """
    store = home / "bentoml" / "bentos" / NAME
    old = tag.partition(":")[2]
    unfinished = home / f"unfinished-{version}"
    shutil.copytree(store / old, unfinished)
    manifest = unfinished / "bento.yaml"
    manifest.write_text(manifest.read_text().replace(old, version)[:manifest_bytes])
    deployment = unfinished / "src" / "bentos" / "classifier" / "deployment.json"
    content = json.loads(deployment.read_text())
    alter(content)
    deployment.write_text(json.dumps(content))
    unfinished.rename(store / version)
    (store / "latest").write_text(version)
    return f"{NAME}:{version}"
