"""Cards of versions: every part is there, none is lost by a change of another one."""

import dataclasses
from collections.abc import Callable

import pytest
from mlflow import MlflowClient

from fashion.config.names import MODEL_NAME
from fashion.home import Home
from fashion.model.package import Package
from fashion.registry import champions, model_card, tracking, versions
from fashion.registry.versions import Version

Register = Callable[[], Version]


@pytest.fixture
def register(mlflow_home: Home, tiny_package: Package) -> Register:
    """Register a version whose run has a description."""
    experiment, folder = tracking.get_or_create_experiment(mlflow_home, "fashion"), tiny_package.folder
    assert folder is not None

    def register() -> Version:
        run = tracking.start_run(experiment, "tiny", {model_card.NOTE: "**tiny** tells clothes apart."})
        address = versions.log_package(run, folder)
        return versions.register(address, run_id=run, tags={"mlflow_run_id": run})

    return register


def described(number: int) -> str:
    return str(MlflowClient().get_model_version(MODEL_NAME, str(number)).description)


def test_a_card_has_what_the_model_is_the_decisions_and_the_latest_reports(register: Register) -> None:
    champions.promote(register(), reason="the first one")
    champions.promote(register(), reason="a better one")
    champions.rollback(reason="users complain")
    assert described(2) == (
        "**tiny** tells clothes apart.\n\n## Decisions\n\n- Promoted: a better one\n- Rolled back: users complain"
    )
    for day in range(12, 0, -1):
        model_card.write(versions.get("1"), report=(f"202701{day:02}T080000Z-v1", f"No drift on day {day}"))
    model_card.write(versions.get("1"), report=("20270112T080000Z-v1", "Harmful drift: two columns"))  # a retried task
    before, _, traffic = described(1).partition("\n\n## Traffic\n\n")
    assert before == "**tiny** tells clothes apart.\n\n## Decisions\n\n- Promoted: the first one"
    lines = traffic.splitlines()
    assert lines[:2] == [
        "- `20270112T080000Z-v1`: Harmful drift: two columns",
        "- `20270111T080000Z-v1`: No drift on day 11",
    ]
    assert len(lines) == model_card.MOST_REPORTS
    model_card.write_last_change()
    assert described(1) == f"{before}\n\n## Traffic\n\n{traffic}"


def test_a_version_waits_until_somebody_decides(register: Register) -> None:
    version = register()
    versions.set_tags(version, {"approval.reason": "it is better"})
    model_card.write(versions.get("1"))
    assert described(1).endswith("- Passed the gate, and waits for a decision: it is better")
    champions.promote(version, reason="I agree")
    assert described(1).endswith("## Decisions\n\n- Promoted: I agree")


def test_a_refused_version_says_why(register: Register) -> None:
    champions.reject(register(), reason="worse")
    assert described(1).endswith("## Decisions\n\n- Refused: worse")


def test_a_description_is_no_longer_than_mlflow_takes(register: Register) -> None:
    version = register()
    versions.set_tags(version, {"refused.reason": "worse, " * 714})
    model_card.write(versions.get("1"))
    assert len(described(1)) == model_card.MOST_CHARACTERS


def test_a_version_that_cannot_be_described_costs_a_line(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    version = register()
    MlflowClient().delete_model_version(MODEL_NAME, "1")
    model_card.write(version)
    assert "version 1 is not described in MLflow: " in caplog.text


def test_the_precision_of_a_quantised_network_is_said(tiny_package: Package) -> None:
    def card(**checked: object) -> str:
        package = dataclasses.replace(tiny_package, export_check={**tiny_package.export_check, **checked})
        return model_card.describe(package, [], 1000)

    assert "| Answers in | int8: 99.59% of the labels are those of float32 |" in card(
        precision="int8", label_agreement=0.9959
    )
    assert "Answers in" not in card(precision="float32")
