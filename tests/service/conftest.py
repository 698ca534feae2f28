"""Fixtures of the service's tests: a bento of a small package, built once."""

import shutil
from pathlib import Path

import pytest
from support import bentos

from fashion.model.package import Package


@pytest.fixture(scope="session")
def built_home(tiny_package: Package, pngs: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with `fashion-classifier:v1`, a bento with five pictures in its gallery."""
    assert tiny_package.folder is not None
    home = tmp_path_factory.mktemp("built") / "var"
    bentos.build(tiny_package.folder, home, pictures=pngs[:5])
    return home


@pytest.fixture
def bento_home(built_home: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test."""
    home = tmp_path / "var"
    shutil.copytree(built_home, home, symlinks=True)
    return home
