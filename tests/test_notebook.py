"""The notebook in docs/notebooks runs, without torch, on a registry with a champion."""

import json
import os
import subprocess
import sys

import pytest

from fashion.home import REPOSITORY, Home
from fashion.model.package import Package
from fashion.registry import champions, tracking, versions

NOTEBOOK = REPOSITORY / "docs" / "notebooks" / "champion.ipynb"


def code_cells() -> list[str]:
    """The code of the notebook."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_the_champion_is_loaded_in_five_lines() -> None:
    assert len([line for line in code_cells()[0].splitlines() if line]) == 5


@pytest.mark.slow
def test_the_notebook_runs_without_torch(mlflow_home: Home, tiny_package: Package) -> None:
    assert tiny_package.folder is not None
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny", {})
    version = versions.register(versions.log_package(run, tiny_package.folder), run_id=run, tags={})
    champions.promote(version, reason="first")
    script = "\n".join([*code_cells(), "import sys", "assert 'torch' not in sys.modules"])
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=NOTEBOOK.parent, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Ankle boot" in done.stdout
    assert "version 1: " in done.stdout
