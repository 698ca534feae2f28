"""Model packages into BentoML's store, and bentos around them. Knows folders and BentoML, no model and no flow."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bentos import store
from fashion.config.serve import bento_name
from fashion.home import REPOSITORY
from fashion.model import package

BENTOS = REPOSITORY / "bentos"
SHARED = "web"
"""The folder in `bentos/` that all bentos use."""
LEFT_OUT = ("training", "evaluation", "figures", "registry", "deployment", "commands", "cleaning")
"""Rooms of the library that no service imports."""
JUNK = shutil.ignore_patterns("__pycache__", "*.pyc")


class BuildFailed(RuntimeError):
    """BentoML could not build. The message is the last line that it printed."""


def store_model(folder: Path, *, name: str, version: int, labels: Mapping[str, str]) -> str:
    """Put a package into BentoML's model store and return its tag. The same package again gets the same tag.

    Args:
        folder: the package.
        name: of the registered model.
        version: of the registered model.
        labels: shown by `bentoml models get`.

    Raises:
        fashion.model.package.DamagedPackage: a file of the package is not what its manifest says.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    digest = package.read(folder).digest
    tag = f"{bento_name(name)}:v{version}-{digest[:12]}"
    store.put_aside_damaged(own=tag)
    if is_stored(tag, digest):
        return tag
    with contextlib.suppress(NotFound):  # a damaged one
        bentoml.models.delete(tag)
    with bentoml.models.create(tag, labels={key: _label(value) for key, value in labels.items()}) as model:
        for path in folder.iterdir():
            shutil.copy(path, model.path)
    return tag


def is_stored(tag: str, digest: str) -> bool:
    """True if BentoML's model store holds an intact package.

    Args:
        tag: of the model.
        digest: of the package: files and checksums that were changed together are not it.
    """
    import bentoml
    from bentoml.exceptions import NotFound

    try:
        return package.read(Path(bentoml.models.get(tag).path)).digest == digest
    except (NotFound, package.DamagedPackage):
        return False


def stored_package(tag: str) -> package.Package:
    """Read a package of BentoML's model store.

    Raises:
        fashion.model.package.DamagedPackage: it is damaged.
    """
    import bentoml

    return package.read(Path(bentoml.models.get(tag).path))


def build(
    bento: str, files: Mapping[str, bytes], *, version: str, name: str | None = None, bentos: Path = BENTOS
) -> str:
    """Build a bento of a service as it is in this repository, and return its tag.

    Args:
        bento: its folder in `bentos`, which holds a `bentofile.yaml`.
        files: to put into the folder, by path: what the service needs beside its code.
        version: of the bento.
        name: of the bento; None for that of its `bentofile.yaml`.
        bentos: the folder of all bentos.

    Raises:
        BuildFailed: BentoML could not build it.
    """
    store.put_aside_damaged()
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        _copy_sources(context, bentos, bento)
        for inside, content in files.items():
            path = context / "bentos" / bento / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        # A process of its own: the service is imported from the copy, not from the repository.
        command = [sys.executable, "-m", "bentoml", "build", "--output", "tag", "--version", version]
        command += ["--name", name] if name else []
        command += ["--bentofile", str(context / "bentos" / bento / "bentofile.yaml"), str(context)]
        process = subprocess.run(command, cwd=context, capture_output=True, text=True)
    if process.returncode != 0:
        lines = (process.stderr or process.stdout).strip().splitlines() or [f"exit code {process.returncode}"]
        full = next((line for line in reversed(lines) if os.strerror(errno.ENOSPC) in line), None)
        remedy = "; free some space (`fashion gc` lists what can go)" if full else ""
        raise BuildFailed(f"the bento was not built: {full or lines[-1]}{remedy}")
    return process.stdout.strip().splitlines()[-1].removeprefix("__tag__:")


def _copy_sources(context: Path, bentos: Path, bento: str) -> None:
    def left_out(folder: str, names: list[str]) -> set[str]:
        rooms = LEFT_OUT if Path(folder) == REPOSITORY / "fashion" else ()
        return JUNK(folder, names) | set(rooms) & set(names)

    shutil.copytree(REPOSITORY / "fashion", context / "fashion", ignore=left_out)
    for each in (SHARED, bento):
        shutil.copytree(bentos / each, context / "bentos" / each, ignore=JUNK)
    shutil.copy(bentos / "__init__.py", context / "bentos")
    shutil.copy(REPOSITORY / "requirements-serve.lock", context / "requirements.txt")
    shutil.copy(REPOSITORY / "README.md", context)


def _label(value: str) -> str:
    return " ".join(str(value).split())[:200]
