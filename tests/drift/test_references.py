"""References of registered versions: fetched once, and usable without their files."""

import pickle
import shutil
from pathlib import Path

import pytest

from fashion.drift.references import References
from fashion.home import Home
from fashion.model.package import Package
from fashion.registry import tracking, versions
from fashion.registry.versions import MODEL_NAME


@pytest.fixture
def registered(mlflow_home: Home, tiny_package: Package) -> str:
    """The version of a registered package."""
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny", {})
    assert tiny_package.folder is not None
    address = versions.log_package(run, tiny_package.folder)
    return str(versions.register(address, run_id=run, tags={}).number)


def test_a_version_is_fetched_once_and_needs_no_files_then(
    registered: str, tiny_package: Package, tmp_path: Path
) -> None:
    references = References(MODEL_NAME, tmp_path / "packages")
    loaded = references.load(registered)
    assert loaded is not None
    assert loaded.package.data == tiny_package.data
    shutil.rmtree(tmp_path / "packages")
    assert references.load(registered) is loaded
    stats = references.stats(registered)
    assert stats is not None
    assert stats.rows == len(loaded.reference.labels)
    copy = pickle.loads(pickle.dumps(references.loaded))[registered]
    assert copy.stats().threshold("predicted labels", 0.3) == stats.threshold("predicted labels", 0.3)
    assert (copy.reference.labels == loaded.reference.labels).all()


def test_an_unknown_version_has_no_reference(registered: str, tmp_path: Path) -> None:
    references = References(MODEL_NAME, tmp_path / "packages")
    assert references.load("77") is None
    assert references.stats("77") is None
    assert references.loaded == {"77": None}
