"""Packages of npm that tests use; `.ci/run` installs them globally."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def folder(name: str, version: str) -> Path:
    """The folder of an installed package. Without it the test is skipped, but fails in CI.

    Args:
        name: of the package.
        version: that is named where it is missing.
    """
    npm = shutil.which("npm")
    root = "" if npm is None else subprocess.run([npm, "root", "-g"], capture_output=True, text=True).stdout.strip()
    if not root or not Path(root, name).is_dir():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is missing: npm install -g {name}@{version}")
    return Path(root, name)
