"""`fashion canary`: what it decides reaches the log that services read, also where that is away at first."""

import os
import time
from collections.abc import Iterator

import pytest
from support import canaries

from fashion.commands.main import main
from fashion.evaluation import canary_tags
from fashion.home import Home
from fashion.model.package import Package
from fashion.predictions.canary import Experiment
from fashion.predictions.canary_ending import name_of
from fashion.predictions.log import PredictionLog
from fashion.registry import versions


@pytest.fixture
def experiment(mlflow_home: Home, tiny_package: Package) -> Iterator[Experiment]:
    before = dict(os.environ)  # the command sets variables of its process
    begun = canaries.begin(tiny_package)
    canaries.answer(mlflow_home.predictions, begun, right=False)
    yield begun
    os.environ.clear()
    os.environ.update(before)


def kind_of_ending(home: Home, experiment: Experiment) -> str | None:
    with PredictionLog(home.predictions) as log:
        found = log.canary_ending(name_of(experiment.champion, experiment.canary))
        return None if found is None else found.kind


def test_what_is_decided_by_hand_is_stored_for_services_and_told_to_nobody_else(
    experiment: Experiment, mlflow_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["canary", "status"]) == 0
    assert "step back: " in capsys.readouterr().out
    assert main(["canary", "decide"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("stepped back: canary 2 is refused, and version 1 stays champion: ")
    assert shown.endswith(
        'running services stop asking it within a minute\nNext: make bento ARGS="serve.canary=null"\n'
    )
    assert kind_of_ending(mlflow_home, experiment) == "stepped back"
    assert canary_tags.is_told(versions.get("2"))
    assert main(["canary", "status"]) == 1
    problem = capsys.readouterr().err
    assert "no canary of fashion-classifier is compared" in problem
    assert "; canary 2 is refused, and version 1 stays champion: " in problem


def test_a_decision_that_the_log_has_not_is_stored_by_the_next_call(
    experiment: Experiment, mlflow_home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    versions.set_tags(
        versions.get("2"), {"refused.reason": "8 of 10 right", "refused.time": "2100-01-01T00:00:00+00:00"}
    )
    assert main(["canary", "decide"]) == 1  # of a process that was killed after it had refused the version
    assert "no canary of fashion-classifier is compared" in capsys.readouterr().err
    assert kind_of_ending(mlflow_home, experiment) == "stepped back"


def test_a_person_who_promotes_a_canary_and_rolls_it_back_reaches_services_too(
    experiment: Experiment, mlflow_home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["registry", "promote", "2", "--reason", "we want it"]) == 0
    assert kind_of_ending(mlflow_home, experiment) == "promoted"
    monkeypatch.setenv("FASHION_LOG", "postgresql://fashion:x@127.0.0.1:1/log")
    time.sleep(1.1)  # times of decisions are seconds
    assert main(["registry", "rollback", "--reason", "users complain"]) == 0
    shown = capsys.readouterr()
    assert "champion: version 1" in shown.out
    assert "services learn it from the next run of the drift flow: " in shown.err
    monkeypatch.delenv("FASHION_LOG")
    assert main(["canary", "decide"]) == 1
    assert "version 1 stays champion: it was rolled back (users complain)" in capsys.readouterr().err
    assert kind_of_ending(mlflow_home, experiment) == "stepped back"
