"""`fashion ui --drift` and `--studies`: what they need, said in one sentence where it is missing."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.served import free_port

from fashion.drift import reports
from fashion.storage.address import open_store


def start(home: Path, *words: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FASHION", "MLFLOW"))}
    return subprocess.Popen(
        [sys.executable, "-m", "fashion", "ui", *words],
        env={**environment, "FASHION_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(home: Path, *words: str) -> str:
    output, errors = start(home, *words).communicate(timeout=240)
    (sentence,) = errors.splitlines()
    assert output == ""
    return sentence


def test_two_uis_at_once_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "--drift", "--studies") == "error: --drift and --studies are two UIs: choose one"


def test_reports_without_snapshots_say_how_to_get_one(tmp_path: Path) -> None:
    port = str(free_port())
    assert "has a snapshot of Evidently's: `make drift` writes one" in refused(tmp_path, "--drift", "--port", port)


def test_a_study_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "`make train` with tuning begins one" in refused(tmp_path, "--studies")
    (tmp_path / "optuna").mkdir()
    (tmp_path / "optuna" / "first.log").touch()
    assert f"there is no study second in {tmp_path / 'optuna'}: it has first" in refused(tmp_path, "--study", "second")


@pytest.mark.slow
def test_optunas_dashboard_shows_the_newest_study(tmp_path: Path) -> None:
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    (tmp_path / "optuna").mkdir()
    for age, name in ((2, "old"), (1, "new")):
        path = tmp_path / "optuna" / f"{name}.log"
        study = create_study(study_name=f"study {name}", storage=JournalStorage(JournalFileBackend(str(path))))
        study.optimize(lambda trial: trial.suggest_float("learning_rate", 0, 1), n_trials=2)
        os.utime(path, (time.time() - age, time.time() - age))
    port = free_port()
    process = start(tmp_path, "--studies", "--port", str(port))
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"Optuna's dashboard of new on http://127.0.0.1:{port} ")
        studies = json.loads(get(f"http://127.0.0.1:{port}/api/studies"))["study_summaries"]
        assert [each["study_name"] for each in studies] == ["study new"]
        assert "learning_rate" in get(f"http://127.0.0.1:{port}/api/studies/{studies[0]['study_id']}")
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.slow
def test_evidentlys_ui_shows_the_snapshots(tmp_path: Path) -> None:
    from evidently import Dataset, Report
    from evidently.metrics import MeanValue
    from pandas import DataFrame

    snapshot = Report([MeanValue(column="brightness")]).run(Dataset.from_pandas(DataFrame({"brightness": [0.1, 0.4]})))
    store = open_store(str(tmp_path / "reports"))
    report_id = reports.make_id(1_800_000_000_000_000, "shoes", "3")
    reports.publish(store, report_id, "", {"model_name": "shoes"}, {"Distributions": snapshot.dumps()})
    port = free_port()
    process = start(tmp_path, "--drift", "--port", str(port))
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Evidently's UI of 1 snapshots on http://127.0.0.1:")
        assert '"shoes"' in get(f"http://127.0.0.1:{port}/api/projects")
    finally:
        process.terminate()
        process.wait(30)


def get(url: str) -> str:
    """What a server answers, once it is up."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 240
    while True:
        try:
            with opener.open(url, timeout=5) as response:
                return str(response.read().decode())
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
