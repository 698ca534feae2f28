"""What the drift flow's steps send, without a flow around them."""

import importlib
from types import ModuleType

import pytest

from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig
from fashion.home import REPOSITORY, Home


@pytest.fixture
def drift_alerts(mlflow_home: Home, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY / "flows")
    for name in ("FASHION_ALERTS", "FASHION_WEBHOOK", "FASHION_SMTP", "FASHION_REPORTS"):
        monkeypatch.delenv(name, raising=False)
    return importlib.import_module("runtime.drift_alerts")


def settings(*words: str) -> DriftConfig:
    return load_as(DriftConfig, compose(words, root=DriftConfig.root))


def test_the_outcome_of_a_training_is_told_once_unless_nobody_wants_to_know(
    drift_alerts: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    done = drift_alerts.chaining.Outcome("version 2 is worse", True, False, "fashion registry list")
    drift_alerts.send_of_training(done, settings("alerts.on=[drift]"))
    assert capsys.readouterr().out == ""
    drift_alerts.send_of_training(done, settings())
    assert capsys.readouterr().out.splitlines() == [
        "ALERT A challenger was refused: the champion stays: fashion-classifier",
        "  version 2 is worse.",
        "  Next: fashion registry list",
    ]


@pytest.mark.fault("alert address that cannot be used")
def test_a_wrong_address_is_told_by_the_other_channels_and_is_over_once_mended(
    drift_alerts: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASHION_WEBHOOK", "example.org/secret")
    drift_alerts.check_what_follows(settings())
    assert capsys.readouterr().err == "warning: FASHION_WEBHOOK must be an http or https address\n"
    for _ in range(2):
        drift_alerts.send_of_window([], {}, settings())
    said = capsys.readouterr().out
    assert said.count("ALERT An address of alerts cannot be used") == 1
    assert "secret" not in said
    monkeypatch.delenv("FASHION_WEBHOOK")
    drift_alerts.send_of_window([], {}, settings())
    assert "ALERT Over: An address of alerts cannot be used" in capsys.readouterr().out
