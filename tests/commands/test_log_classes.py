"""Feedback and names of models by the command line, with what the registry knows of the models."""

from pathlib import Path

import pytest
from support import old_logs
from support.log_rows import record

from fashion.commands.main import main
from fashion.config.names import MODEL_NAME
from fashion.home import Home
from fashion.model.package import Package
from fashion.predictions.log import PredictionLog
from fashion.predictions.record import PredictionRecord
from fashion.registry import tracking, versions

LATER_US = 4_000_000_000_000_000


@pytest.fixture
def registered(mlflow_home: Home, tiny_package: Package) -> Package:
    """A package that is version 1 of the registered model."""
    run = tracking.start_run(tracking.get_or_create_experiment(mlflow_home, "fashion"), "tiny", {})
    assert tiny_package.folder is not None
    versions.register(versions.log_package(run, tiny_package.folder), run_id=run, tags={})
    return tiny_package


def row(package: Package, **changed: object) -> PredictionRecord:
    given = {"model_version": "1", "model_digest": package.digest[:16], "probabilities": (0.1,) * 10}
    return record(**given | {"time_us": LATER_US} | changed)


def test_labels_of_a_table_are_classes_of_the_model_that_predicted_and_of_no_other(
    registered: Package, mlflow_home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named, numbered, other, lost = (
        row(registered, **changed) for changed in ({}, {}, {"model_name": "bags"}, {"model_digest": "f" * 16})
    )
    with PredictionLog(mlflow_home.predictions) as log:
        log.append([named, numbered, other, lost])
    labels = {named: "Coat", numbered: "3", other: "Coat", lost: "Coat"}
    lines = ["prediction_id,true_label", *(f"{each.prediction_id},{label}" for each, label in labels.items())]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    assert main(["log", "feedback", str(tmp_path / "labels.csv")]) == 1
    printed = capsys.readouterr()
    assert printed.out == "2 rows stored, 2 rejected\n"
    first, second = printed.err.splitlines()
    assert first.startswith("line 4: the classes of bags version 1 (")
    assert first.endswith("--classes names them in order")
    assert "for the registry has another package of this number: --classes names them in order" in second
    with PredictionLog(mlflow_home.predictions) as log:
        assert [log.get(each.prediction_id).true_label for each in (named, numbered)] == [4, 3]


def test_rows_of_before_names_are_given_the_name_of_the_only_version_that_they_can_be_of(
    registered: Package, mlflow_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, too_old, unknown, two_classes = (
        row(registered, **changed)
        for changed in ({}, {"time_us": 1}, {"model_version": "9"}, {"probabilities": (0.5, 0.5)})
    )
    old_logs.sqlite_1(mlflow_home.predictions, mine, too_old, unknown, two_classes)
    assert main(["log", "assign", MODEL_NAME]) == 0
    assert capsys.readouterr().out == f"1 predictions are of {MODEL_NAME} now; 3 stay without a name\n"
    with PredictionLog(mlflow_home.predictions) as log:
        assert log.get(mine.prediction_id).record.model == mine.model
        assert log.get(too_old.prediction_id).record.model_name is None
    assert main(["log", "assign", "bags"]) == 1
    assert capsys.readouterr().err.startswith("error: the registry has no version of bags: ")
