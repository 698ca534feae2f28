"""Manifests of configs/deploy as plain data, and which environment variables the code reads."""

import re
from pathlib import Path
from typing import Any

import yaml

from fashion.home import REPOSITORY

DEPLOY = REPOSITORY / "configs" / "deploy"


def load(name: str) -> Any:
    """The one document of a file."""
    return yaml.safe_load((DEPLOY / name).read_text())


def variables_of_the_code() -> set[str]:
    """Names of the project's environment variables that are read somewhere."""
    texts = [path.read_text() for room in ("fashion", "bentos", "flows") for path in (REPOSITORY / room).rglob("*.py")]
    found = {name for text in texts for name in re.findall(r"\"(FASHION_[A-Z_]+|HYDRA_ARGS)\"", text)}
    return found


def project_variables(names: Any) -> set[str]:
    """Of some names, those that are the project's."""
    return {name for name in names if re.match(r"FASHION_|HYDRA_ARGS$", name)}


def paths_of_probes(text: str) -> set[str]:
    """Paths that probes of a manifest ask for."""
    return set(re.findall(r"path: (/\w+)", text)) | set(re.findall(r"http://127.0.0.1:3000(/\w+)'", text))


def file(name: str) -> Path:
    """A file of configs/deploy."""
    return DEPLOY / name
