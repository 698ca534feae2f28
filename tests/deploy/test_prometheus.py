"""Prometheus' configuration and rules, by Prometheus' own tool."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.prometheus import program

from bentos.web.request_metrics import SECONDS
from fashion.home import REPOSITORY

FOLDER = REPOSITORY / "configs" / "deploy" / "prometheus"


def promtool(*arguments: str) -> str:
    done = subprocess.run([program("promtool"), *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts(path: Path) -> set[str]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}


def test_configuration_and_rules_are_valid() -> None:
    assert "SUCCESS" in promtool("check", "config", "--lint=all", "--lint-fatal", "prometheus.yml")


@pytest.mark.slow
def test_rules_do_what_their_tests_say() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    cases = [
        case
        for test in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == alerts(FOLDER / "rules.yml")
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == alerts(FOLDER / "rules.yml")


def test_the_latency_objective_is_a_bucket_of_the_histogram() -> None:
    bounds = set(re.findall(r'\ble="([^"]+)"', (FOLDER / "rules.yml").read_text()))
    assert bounds == {"0.07"}
    assert {float(each) for each in bounds} <= set(SECONDS)
