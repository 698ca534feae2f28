"""Drift reports as MLflow runs: one each, and one of curves for each version."""

from typing import Any

import pytest
from mlflow import MlflowClient

from fashion.home import Home
from fashion.registry import drift_runs, tracking


def result(version: str, until_us: int, confidence: float) -> dict[str, Any]:
    return {
        "decision": "drift",
        "level": "harmless",
        "model_name": "shoes",
        "model_version": version,
        "rows": 900,
        "mean_confidence": confidence,
        "p_values": {"embedding": 0.5},
        "severity": None,
        "estimated": {"accuracy": 0.9, "low": 0.8, "high": 0.95, "reliable": True},
        "feedback": None,
        "until_us": until_us,
    }


def test_each_report_is_a_run_and_a_point_of_its_versions_curves(mlflow_home: Home) -> None:
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion-drift")
    reports = [("1", 1_000_000_000, 0.9), ("1", 2_000_000_000, 0.8), ("2", 2_000_000_000, 0.7)]
    for number, (version, until_us, confidence) in enumerate([*reports, reports[1]]):  # the last as by a retried task
        name = f"report {min(number, 2) if number != 3 else 1}"
        drift_runs.log_report(experiment, name, result(version, until_us, confidence), "<p>", data_digest="abc")
    runs = {run.info.run_name: run for run in MlflowClient().search_runs([experiment])}
    curves = {name for name in runs if name.endswith(drift_runs.OVER_TIME)}
    assert curves == {"shoes version 1 over time", "shoes version 2 over time"}
    assert len(runs) == 5
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    run_id = runs["shoes version 1 over time"].info.run_id
    history = MlflowClient().get_metric_history(run_id, "mean_confidence")
    assert [(each.step, each.timestamp, each.value) for each in history] == [(0, 1_000_000, 0.9), (1, 2_000_000, 0.8)]
    assert runs["report 1"].data.metrics["accuracy/estimated"] == pytest.approx(0.9)
    assert "drift" not in runs["report 1"].data.metrics
    assert runs["shoes version 1 over time"].data.metrics["drift"] == 1


@pytest.mark.fault("a registry was lost, and version numbers began anew")
def test_versions_of_one_number_have_curves_of_their_own(mlflow_home: Home) -> None:
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion-drift")
    for number, digest in enumerate(["0a1b2c3d" * 2, "f" * 16, "0a1b2c3d" * 2]):
        content = {**result("2", (number + 1) * 1_000_000_000, number / 10), "model_digest": digest}
        drift_runs.log_report(experiment, f"report {number}", content, "<p>")
    values = curves(experiment)
    assert values == {"shoes version 2 (0a1b2c3d) over time": [0, 0.2], "shoes version 2 (ffffffff) over time": [0.1]}


@pytest.mark.parametrize("is_other", [False, True])
def test_curves_of_before_names_had_digests_go_on_where_no_other_package_had_the_number(
    mlflow_home: Home, is_other: bool
) -> None:
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion-drift")
    drift_runs.log_report(experiment, "report 0", result("2", 1_000_000_000, 0.5), "<p>")
    if is_other:
        tracking.start_run(experiment, "earlier", {"model_name": "shoes", "model_version": "2", "model_digest": "f"})
    named = {**result("2", 2_000_000_000, 0.6), "model_digest": "0a1b2c3d" * 2}
    drift_runs.log_report(experiment, "report 1", named, "<p>")
    new, old = "shoes version 2 (0a1b2c3d) over time", "shoes version 2 over time"
    assert curves(experiment) == ({old: [0.5], new: [0.6]} if is_other else {new: [0.5, 0.6]})


def curves(experiment: str) -> dict[str, list[float]]:
    """Name of each run of curves -> mean confidence over reports."""
    client = MlflowClient()
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
    return {
        name: [each.value for each in client.get_metric_history(run_id, "mean_confidence")]
        for name, run_id in runs.items()
        if name.endswith(drift_runs.OVER_TIME)
    }


def test_a_window_without_rows_is_no_point(mlflow_home: Home) -> None:
    experiment = tracking.get_or_create_experiment(mlflow_home, "fashion-drift")
    drift_runs.log_report(experiment, "report", {**result("1", 1, 0.0), "rows": 0}, "<p>")
    assert [run.info.run_name for run in MlflowClient().search_runs([experiment])] == ["report"]


def test_an_estimate_has_its_interval_and_whether_it_is_reliable() -> None:
    estimate = {"accuracy": 0.9, "low": 0.87, "high": 0.93, "reliable": False, "signals": []}
    assert drift_runs._estimated(estimate) == {
        "accuracy/estimated": 0.9,
        "accuracy/estimated_low": 0.87,
        "accuracy/estimated_high": 0.93,
        "accuracy/estimated_reliable": False,
    }
    assert set(drift_runs._estimated({}).values()) == {None}
