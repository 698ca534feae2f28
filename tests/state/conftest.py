"""A home with a champion, a log and Metaflow's metadata, made once and copied for each test."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.log_rows import record

from fashion.home import Home, prepare_environment
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.registry import champions, tracking, versions

METADATA = Path("metaflow/.metaflow/TrainFlow/1/start/1/_meta/0_artifact_name.json")
STATE = ("FASHION", "MLFLOW", "METAFLOW", "BENTOML")


@dataclass(frozen=True)
class Original:
    """A home, and what is in it."""

    root: Path
    run: str
    """Of MLflow."""


def use(root: Path) -> Home:
    """Let this process use a home, as a new process does that is started with FASHION_HOME alone."""
    for name in [name for name in os.environ if name.startswith(STATE)]:
        del os.environ[name]
    os.environ["FASHION_HOME"] = str(root)
    home = prepare_environment()
    tracking.connect(home)
    return home


@pytest.fixture(scope="session")
def made(migrated_database: Path, tiny_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Original:
    """The home that the others are copies of; nothing may change it, and at its path there must be nothing."""
    before = dict(os.environ)
    root = tmp_path_factory.mktemp("made") / "var"
    root.mkdir()
    shutil.copy(migrated_database, root / "mlflow.db")
    home = use(root)
    experiment = tracking.get_or_create_experiment(home, "fashion")
    run = tracking.start_run(experiment, "first", {})
    assert tiny_package.folder is not None
    model = versions.log_package(run, tiny_package.folder)
    champions.promote(versions.register(model, run_id=run, tags={"summary": "tiny"}), reason="the first")
    tracking.log_files(run, {"notes/a.txt": b"first"})
    tracking.finish_run(run)
    with PredictionLog(home.predictions) as log:
        log.append([record() for _ in range(3)])
    (root / METADATA).parent.mkdir(parents=True)
    (root / METADATA).write_text(f'{{"location": ":root:{root}/metaflow/.metaflow"}}')
    os.environ.clear()
    os.environ.update(before)
    aside = root.with_name("aside")
    root.rename(aside)
    return Original(aside, run)


@pytest.fixture
def original(made: Original, tmp_path: Path) -> Original:
    """A copy of that home, which has been used where it is."""
    root = tmp_path / "var"
    shutil.copytree(made.root, root)
    use(root)
    return Original(root, made.run)
