"""The drift flow's last step steps back from a canary, is killed before its alert, and is retried."""

import shutil
from pathlib import Path

import pytest
from support import canaries, faults
from support.machine import Machine

from fashion.evaluation import canary_tags
from fashion.home import current_home
from fashion.model.package import Package
from fashion.predictions.canary_ending import name_of
from fashion.predictions.log import PredictionLog
from fashion.registry import tracking, versions


@pytest.mark.slow
@pytest.mark.fault("the drift flow is killed after it has stepped back from a canary")
def test_a_step_back_is_told_once_by_the_retry_and_known_to_services(
    tiny_package: Package, migrated_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path / "var")
    shutil.copy(migrated_database, machine.root / "mlflow.db")
    monkeypatch.setenv("FASHION_HOME", str(machine.root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{machine.root / 'mlflow.db'}")
    tracking.connect(current_home())
    experiment = canaries.begin(tiny_package)
    canaries.answer(machine.root / "predictions.db", experiment, right=False)
    machine.environment |= faults.at("fashion.drift.alerts:notify", tmp_path)
    printed = machine.flow("run", name="drift_flow")
    assert (tmp_path / "done").exists()
    assert printed.count("ALERT A canary was refused: the champion stays: fashion-classifier") == 1
    assert canary_tags.is_told(versions.get("2"))
    with PredictionLog(machine.root / "predictions.db") as log:
        assert log.canary_ending(name_of(experiment.champion, experiment.canary)) is not None
