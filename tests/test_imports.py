"""Importing is light and does nothing: no training libraries outside training, no files, no changed environment."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import fashion
from fashion.home import REPOSITORY

MODULES = sorted(module.name for module in pkgutil.walk_packages(fashion.__path__, "fashion."))
TRAINING = [name for name in MODULES if name.startswith("fashion.training")]
OTHERS = [name for name in MODULES if name not in TRAINING]

BY_LIBRARIES = {
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "PYTORCH_NVML_BASED_CUDA_CHECK", "TORCHINDUCTOR_CACHE_DIR"),
    "_MLFLOW_TELEMETRY_SESSION_ID",
}
"""What torch, Fabric and MLflow set when they are imported."""

CODE = """
import importlib, json, os, sys
before = dict(os.environ)
for name in sys.argv[1:]:
    importlib.import_module(name)
changed = sorted(name for name in before.keys() | os.environ.keys() if before.get(name) != os.environ.get(name))
print(json.dumps({"loaded": sorted({name.partition(".")[0] for name in sys.modules}), "changed": changed}))
"""


def imported(names: list[str], folder: Path, **more: str) -> dict[str, list[str]]:
    """Import modules in a process of its own, and tell what else was loaded and what changed."""
    work = folder / "work"
    work.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-B", "-c", CODE, *names],
        cwd=work,
        # Libraries write beside the home folder's other caches, and that is theirs to do.
        env={**kept, "HOME": str(folder / "home"), "FASHION_HOME": str(work / "var"), **more},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    assert list(work.iterdir()) == []
    return found


@pytest.mark.slow
def test_all_but_training_load_no_library_of_training(tmp_path: Path) -> None:
    found = imported(OTHERS, tmp_path)
    assert not {"torch", "timm", "optuna", "lightning_fabric", "lightning", "plotly"} & set(found["loaded"])
    assert set(found["changed"]) <= BY_LIBRARIES


@pytest.mark.parametrize("name", ["train_flow", "deploy_flow", "drift_flow", "predict_flow"])
def test_a_flow_loads_what_its_steps_need_when_they_run(name: str, tmp_path: Path) -> None:
    # A flow prepares its home; beside that it writes nothing.
    own = {"PYTHONPATH": str(REPOSITORY / "flows"), "FASHION_HOME": str(tmp_path / "var")}
    found = imported([name], tmp_path, **own)
    heavy = {
        *("torch", "timm", "optuna", "mlflow", "onnxruntime"),
        *("bentoml", "evidently", "matplotlib", "scipy", "pandas"),
    }
    assert not heavy & set(found["loaded"])


@pytest.mark.slow
def test_training_changes_nothing_by_being_imported(tmp_path: Path) -> None:
    found = imported(TRAINING, tmp_path)
    assert "torch" in found["loaded"]
    assert "metaflow" not in found["loaded"]
    assert set(found["changed"]) <= BY_LIBRARIES


def test_the_service_loads_no_library_of_training_or_watching(tmp_path: Path) -> None:
    # All of it but service.py, which reads what a deployment has written.
    service = ["bentos.classifier.app", "fashion.predictions.firestore", "fashion.predictions.postgres"]
    found = imported([*service, "fashion.config.serve"], tmp_path)
    heavy = {
        *("torch", "mlflow", "metaflow", "evidently", "scipy", "pandas", "matplotlib", "optuna", "hydra", "pyarrow"),
        "obstore",  # loaded where an address names it
    }
    assert not heavy & set(found["loaded"])
    assert found["changed"] == []


@pytest.mark.parametrize("name", ["fashion.model.predictor", "fashion.home", "fashion.config.compose"])
def test_what_the_service_imports_is_light(name: str, tmp_path: Path) -> None:
    heavy = {"mlflow", "scipy", "matplotlib", "metaflow", "evidently", "pandas", "sklearn", "torch", "google", "hydra"}
    found = imported([name], tmp_path)
    assert not heavy & set(found["loaded"])
    assert found["changed"] == []
