"""The registry after a process was killed before or after any of its writes: each action swept once, for all tests."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import kill_sweep

from fashion.config.names import MODEL_NAME
from fashion.home import current_home
from fashion.model.package import Package
from fashion.registry import champions, tracking, versions
from fashion.registry.versions import DIGEST

SCENARIOS = """
import dataclasses
from pathlib import Path
import numpy as np
from mlflow import MlflowClient
from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.data.dataset import Split
from fashion.evaluation import registration
from fashion.home import current_home
from fashion.model import package
from fashion.model.predictor import Predictor
from fashion.registry import champions, history, tracking, versions

FOLDER, RUN, EMPTY_RUN = Path({folder!r}), {run!r}, {empty!r}
ADDRESS, MODEL = {address!r}, "fashion-classifier"
images = np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8)
labels = Predictor(package.read(FOLDER)).predict(images).labels
gate = dataclasses.replace(load_train_config(compose()).gate, max_latency_ratio=1000.0)

def connect():
    tracking.connect(current_home())

def check_aliases(champion):
    found = versions.champion()
    assert found is not None and found.number == champion, found
    assert "challenger" not in found.aliases, found
    assert not [key for key in MlflowClient().get_registered_model(MODEL).tags if "pending" in key]
    assert history.read().changes[-1].version == champion

def promote():
    connect()
    champions.promote(versions.get("3"), reason="better")

def check_promoted():
    connect()
    champions.settle()
    if versions.champion().number == 2:  # it had not begun
        check_aliases(2)
        promote()
    check_aliases(3)
    assert versions.get("3").tags["promoted.replaced"] == "2"
    assert [change.version for change in history.read().changes] == [1, 2, 3]
    assert champions.rollback(reason="worse").number == 2

def roll_back():
    connect()
    champions.rollback(reason="worse")

def check_rolled_back():
    connect()
    champions.settle()
    if versions.champion().number == 2:
        roll_back()
    check_aliases(1)
    assert [change.version for change in history.read().changes] == [1, 2, 1]
    assert versions.get("2").tags["rolled_back.reason"] == "worse"
    assert versions.get("challenger").number == 3

def register(right=labels):
    connect()
    splits = {{"test": Split(images, right)}}
    return registration.register(ADDRESS, run_id=RUN, name=MODEL, tags={{"summary": "s"}}, splits=splits, settings=gate)

def check_registered():
    version, verdict = register()
    assert verdict.promoted and version.number == 4, verdict
    check_aliases(4)
    assert [(change.version, change.event) for change in history.read().changes][2:] == [(4, "promoted by the gate")]
    assert any(name.startswith("check/") for name in versions.get("4").tags)
    assert MlflowClient().get_run(RUN).info.status == "FINISHED"
    assert MlflowClient().get_run(RUN).data.tags["promoted"] == "True"

worse = dataclasses.replace(gate, max_ece_increase=0.0, max_latency_ratio=1e-9)

def register_worse():
    connect()
    splits = {{"test": Split(images, labels)}}
    return registration.register(ADDRESS, run_id=RUN, name=MODEL, tags={{}}, splits=splits, settings=worse)

def check_refused():
    version, verdict = register_worse()
    assert not verdict.promoted and version.number == 4, verdict
    version = versions.get("4")
    assert version.aliases == ("challenger",), version
    assert version.tags["refused.reason"] == verdict.reason and "refused.time" in version.tags
    check_aliases(2)

def log():
    connect()
    versions.log_package(EMPTY_RUN, FOLDER)

def check_logged():
    connect()
    address = versions.log_package(EMPTY_RUN, FOLDER)
    experiment = MlflowClient().get_run(EMPTY_RUN).info.experiment_id
    found = MlflowClient().search_logged_models([experiment])
    (model,) = (each for each in found if each.source_run_id == EMPTY_RUN)
    assert (model.model_uri, str(model.status)) == (address, "READY"), model

SCENARIOS = {{
    "promote": (promote, check_promoted, ()),
    "roll back": (roll_back, check_rolled_back, ()),
    "register and promote": (register, check_registered, ()),
    "register and refuse": (register_worse, check_refused, ()),
    "log": (log, check_logged, ("log_model_artifacts", "finalize_logged_model")),
}}
"""


@pytest.fixture(scope="module")
def swept(
    tiny_package: Package, migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, object]:
    """What each scenario came to: its number of writes, or how its check failed."""
    root = tmp_path_factory.mktemp("swept") / "var"
    root.mkdir()
    shutil.copy(migrated_database, root / "mlflow.db")
    assert tiny_package.folder is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASHION_HOME", str(root))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
        tracking.connect(current_home())
        client = MlflowClient()
        client.create_registered_model(MODEL_NAME)
        for _ in range(3):
            client.create_model_version(MODEL_NAME, str(tiny_package.folder), tags={DIGEST: tiny_package.digest})
        for number in ("1", "2"):
            champions.promote(versions.get(number), reason="good")
        client.set_registered_model_alias(MODEL_NAME, versions.CHALLENGER, "3")
        experiment = tracking.get_or_create_experiment(current_home(), "fashion")
        run, empty = (tracking.start_run(experiment, name, {}) for name in ("tiny", "empty"))
        address = versions.log_package(run, tiny_package.folder)
        source = SCENARIOS.format(folder=str(tiny_package.folder), run=run, empty=empty, address=address)
        return kill_sweep.run(root / "mlflow.db", source)


@pytest.mark.fault("a promotion killed before or after each of its writes")
def test_a_killed_promotion_is_completed_by_the_next_command(swept: dict[str, object]) -> None:
    assert swept["promote"] == 8


@pytest.mark.fault("a rollback killed before or after each of its writes")
def test_a_killed_rollback_is_completed_by_the_next_command(swept: dict[str, object]) -> None:
    assert swept["roll back"] == 6


@pytest.mark.fault("the register step killed before or after each of its writes")
@pytest.mark.parametrize("scenario", ["register and promote", "register and refuse"])
def test_a_killed_registration_ends_as_one_judged_version_once_it_is_retried(
    scenario: str, swept: dict[str, object]
) -> None:
    assert isinstance(swept[scenario], int), swept[scenario]
    assert swept[scenario] > 10  # type: ignore[operator]


@pytest.mark.fault("killed while the model package is logged")
def test_a_package_that_is_logged_again_after_a_kill_is_one_logged_model(swept: dict[str, object]) -> None:
    assert swept["log"] == 2
