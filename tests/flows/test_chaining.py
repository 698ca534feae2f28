"""What drift starts works on the data set that drift looked at."""

from typing import Any

import pytest

from fashion.config.compose import compose, load_as
from fashion.config.drift import DriftConfig, RetrainConfig
from fashion.home import REPOSITORY


@pytest.fixture
def chaining(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(REPOSITORY / "flows")
    from runtime import chaining  # as flows do, which run as scripts

    return chaining


def retrain(*overrides: str) -> RetrainConfig:
    return load_as(DriftConfig, compose(list(overrides), root=DriftConfig.root)).retrain


@pytest.mark.parametrize(
    ("started", "expected"), [("data=digits rows=300", ["data=digits"]), ("rows=300", []), ("", [])]
)
def test_the_data_set_is_passed_on(
    chaining: Any, started: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_ARGS", started)
    overrides = chaining.train_overrides(retrain(), "digits-classifier")
    assert [each for each in overrides if each.startswith("data=")] == expected
    assert "feedback.use=true" in overrides
    deployed = chaining.deploy_overrides("serve.gallery=3", "digits-classifier").split()
    assert [each for each in deployed if each.startswith("data=")] == expected


def test_another_data_set_may_be_configured(chaining: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_ARGS", "data=digits")
    overrides = chaining.train_overrides(retrain("retrain.overrides='data=more tuning=off'"), "digits-classifier")
    assert [each for each in overrides if each.startswith("data=")] == ["data=more"]
