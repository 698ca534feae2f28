"""MLflow runs of drift reports: one for each report, and one for each version, whose metrics are curves over reports.

Knows results as JSON, not how they come about.
"""

import json
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient

from fashion.registry.tracking import failing, finish_run, log_files, log_metrics, start_run

OVER_TIME = "over time"
"""How the name of a version's run of curves ends."""
DIGITS = 8
"""Of a package's digest, in that name."""


def log_report(
    experiment_id: str, name: str, result: Mapping[str, Any], page: str, *, data_digest: str | None = None
) -> str:
    """Log a drift result and its report as a run of its own, and as a point of the version's curves.

    A report has one run: called again for the same report, as by a retried task, this completes the existing one.

    Args:
        experiment_id: what `get_or_create_experiment` returned.
        name: the report's name, which becomes the run's.
        result: `DriftResult` as JSON.
        page: the report as HTML.
        data_digest: the version of the model's training data; None where the model is unknown.

    Returns:
        The run's id.
    """
    known = _named(experiment_id, name)
    named = ("decision", "level", "model_name", "model_version", "model_digest", "reason", "unjudged")
    tags = {key: str(result[key]) for key in named if result.get(key) not in (None, "")}
    tags |= {} if data_digest is None else {"data.digest": data_digest}
    run_id = known or start_run(experiment_id, name, tags)
    numbers = {
        "rows": result["rows"],
        "mean_confidence": result["mean_confidence"],
        **{f"p/{family}": value for family, value in result["p_values"].items()},
        **{f"severity/{key}": value for key, value in ((result["severity"] or {}).get("signals") or {}).items()},
        **_estimated(result["estimated"] or {}),
        "accuracy/feedback": (result["feedback"] or {}).get("accuracy"),
    }
    content = json.dumps(result, indent=1).encode()
    with failing(run_id):
        log_metrics(run_id, {key: float(value) for key, value in numbers.items() if value is not None})
        log_files(run_id, {"drift/report.html": page.encode(), "drift/result.json": content})
        finish_run(run_id)
    if result["rows"] and result["model_version"]:
        _extend_curves(experiment_id, result, numbers)
    return run_id


def _extend_curves(experiment_id: str, result: Mapping[str, Any], numbers: Mapping[str, float | None]) -> None:
    """Add a point to the run that holds one version's metrics over reports: in MLflow, versions compare as curves."""
    client, run_id = MlflowClient(), _curves_of(experiment_id, result)
    points = {metric.timestamp: metric.step for metric in client.get_metric_history(run_id, "rows")}
    time_ms = int(result["until_us"]) // 1000
    with failing(run_id):
        if time_ms not in points:
            drifts = {"drift": float(result["decision"] == "drift"), "harmful": float(result["level"] == "harmful")}
            finite = {key: float(value) for key, value in numbers.items() if value is not None}
            log_metrics(run_id, finite | drifts, step=len(points), time_ms=time_ms)
        finish_run(run_id)


def _curves_of(experiment_id: str, result: Mapping[str, Any]) -> str:
    """Id of the run of a version's curves. Its name has the package's digest: numbers begin anew with a registry.

    A run that an older version of this project named, without the digest, goes on, unless there are reports on another
    package of that number: then nobody knows whose it is.
    """
    client, of_model = MlflowClient(), {key: str(result[key]) for key in ("model_name", "model_version")}
    version, digest = f"{result['model_name']} version {result['model_version']}", result.get("model_digest") or ""
    name = f"{version} ({digest[:DIGITS]}) {OVER_TIME}" if digest else f"{version} {OVER_TIME}"
    if (known := _named(experiment_id, name)) is not None:
        return known
    if not digest:
        return start_run(experiment_id, name, of_model)
    earlier = _named(experiment_id, f"{version} {OVER_TIME}")
    same_number = " and ".join(f"tags.{key} = '{value}'" for key, value in of_model.items())
    others = client.search_runs([experiment_id], f"{same_number} and tags.model_digest != '{digest}'", max_results=1)
    if earlier is None or others:
        return start_run(experiment_id, name, {**of_model, "model_digest": digest})
    client.update_run(earlier, name=name)
    client.set_tag(earlier, "model_digest", digest)
    return earlier


def _named(experiment_id: str, name: str) -> str | None:
    """Id of the run with this name; None where there is none."""
    known = MlflowClient().search_runs([experiment_id], f"attributes.run_name = '{name}'", max_results=1)
    return str(known[0].info.run_id) if known else None


def _estimated(estimate: Mapping[str, Any]) -> dict[str, float | None]:
    """The accuracy without labels, its interval, and whether it is reliable: 1 or 0."""
    ends = {f"accuracy/estimated_{end}": estimate.get(end) for end in ("low", "high", "reliable")}
    return {"accuracy/estimated": estimate.get("accuracy"), **ends}
