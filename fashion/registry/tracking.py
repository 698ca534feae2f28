"""MLflow runs: what a training logs, and where. Knows nothing of versions and aliases: those are in `registry`.

`fashion ui` opens the MLflow UI on this machine's tracking store.
"""

import contextlib
import dataclasses
import json
import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from fashion.home import Home

MAX_BATCH = 100
"""Params that MLflow takes in one call."""


@dataclass(frozen=True)
class TrackedTrial:
    """A finished trial as its run shows it."""

    number: int
    params: Mapping[str, Any]
    state: str
    value: float | None
    """Objective; null for a trial without."""
    intermediate: Mapping[int, float]
    """Percent of the schedule -> value."""
    start_ms: int
    end_ms: int


def connect(home: Home) -> None:
    """Point MLflow at the tracking store, and make or upgrade a local database, one process at a time."""
    mlflow.set_tracking_uri(home.tracking_uri)
    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if urlparse(home.tracking_uri).scheme == "sqlite":
        with _alone(home.root):
            MlflowClient().search_experiments(max_results=1)


def get_or_create_experiment(home: Home, name: str) -> str:
    """The id of an experiment, made where it is missing.

    On a local database its artifact location is absolute, so that each working directory finds the same.
    """
    client = MlflowClient()
    with _alone(home.root):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        local = urlparse(home.tracking_uri).scheme == "sqlite"
        # The kind makes the UI open on training runs; it would open on language models otherwise.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, f"{home.artifacts}/{name}" if local else None, tags))


def start_run(experiment_id: str, name: str, tags: Mapping[str, str], *, parent: str | None = None) -> str:
    """Create a run and return its id. It stays open over processes until `finish_run`."""
    nesting = {} if parent is None else {"mlflow.parentRunId": parent}
    run = MlflowClient().create_run(experiment_id, run_name=name, tags={**tags, **nesting})
    return str(run.info.run_id)


def finish_run(run_id: str, *, failed: bool = False) -> None:
    """Close a run."""
    MlflowClient().set_terminated(run_id, "FAILED" if failed else "FINISHED")


@contextlib.contextmanager
def failing(run_id: str) -> Iterator[None]:
    """Mark the run as failed when the block raises; a retry that gets through marks it finished."""
    try:
        yield
    except BaseException:
        finish_run(run_id, failed=True)
        raise


@contextlib.contextmanager
def system_metrics(run_id: str) -> Iterator[None]:
    """Log load of processor, memory, disk, network and GPU, every 5 seconds while the block runs."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor: Any = SystemMetricsMonitor(run_id, resume_logging=True)  # type: ignore[no-untyped-call]
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()


def log_params(run_id: str, config: Mapping[str, Any]) -> None:
    """Log nested settings, a dotted name each."""
    client = MlflowClient()
    params = [Param(name, str(value)) for name, value in flatten(config).items()]
    for start in range(0, len(params), MAX_BATCH):
        client.log_batch(run_id, params=params[start : start + MAX_BATCH])


def log_metrics(run_id: str, metrics: Mapping[str, float], *, step: int = 0) -> None:
    """Log finite values; the names of those that are not go into the tag `not_finite`."""
    now = int(time.time() * 1000)
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    tags = [RunTag("not_finite", ", ".join(sorted(set(metrics) - set(finite))))] if len(finite) < len(metrics) else []
    MlflowClient().log_batch(run_id, [Metric(name, value, now, step) for name, value in finite.items()], tags=tags)


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    MlflowClient().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def log_dataset(run_id: str, *, name: str, digest: str, source: str, images: Any, labels: Any) -> None:
    """Log what the run was trained on as an MLflow dataset; `digest` is its version."""
    from mlflow.data.numpy_dataset import from_numpy
    from mlflow.entities import DatasetInput, InputTag

    # MLflow has room for 36 characters of a digest; the tag holds it whole.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a path may be read as several kinds of source
        data = from_numpy(images, targets=labels, source=source, name=name, digest=digest[:36])
    context = [InputTag("mlflow.data.context", "training")]
    MlflowClient().log_inputs(run_id, [DatasetInput(data._to_mlflow_entity(), context)])
    log_tags(run_id, {"data.name": name, "data.digest": digest})


def log_files(run_id: str, files: Mapping[str, bytes]) -> None:
    """Log artifacts: path -> content."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        MlflowClient().log_artifacts(run_id, folder)


def log_table(run_id: str, name: str, rows: Sequence[Any]) -> None:
    """Log dataclass instances of one class as a table, a column a field.

    A table that is there stays as it is: MLflow would append to what a task logged before it was retried.
    """
    client = MlflowClient()
    if name in {entry.path for entry in client.list_artifacts(run_id, name.rpartition("/")[0] or None)}:
        return
    columns: dict[str, list[Any]] = {
        field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(rows[0])
    }
    client.log_table(run_id, columns, name)


def log_image(run_id: str, key: str, png: bytes, *, step: int) -> None:
    """Log one picture of a series, which the UI shows with a slider over steps."""
    import io

    from PIL import Image

    MlflowClient().log_image(run_id, Image.open(io.BytesIO(png)).convert("RGB"), key=key, step=step)


def log_drift(
    experiment_id: str, name: str, result: Mapping[str, Any], page: str, *, data_digest: str | None = None
) -> str:
    """Log a drift result and its report as a run of its own, and return its id.

    A report has one run: called again for it, as by a retried task, this completes the one there is.

    Args:
        data_digest: the version of the data that the model learnt from, and is compared with; None where the model
            is unknown.
    """
    client = MlflowClient()
    known = client.search_runs([experiment_id], f"attributes.run_name = '{name}'", max_results=1)
    tags = {key: str(result[key]) for key in ("decision", "level", "model_version", "reason")}
    tags |= {} if data_digest is None else {"data.digest": data_digest}
    run_id = str(known[0].info.run_id) if known else start_run(experiment_id, name, tags)
    numbers = {
        "rows": result["rows"],
        "mean_confidence": result["mean_confidence"],
        **{f"p/{family}": value for family, value in result["p_values"].items()},
        **{f"severity/{key}": value for key, value in ((result["severity"] or {}).get("signals") or {}).items()},
        "accuracy/estimated": (result["estimated"] or {}).get("accuracy"),
        "accuracy/feedback": (result["feedback"] or {}).get("accuracy"),
    }
    log_metrics(run_id, {key: float(value) for key, value in numbers.items() if value is not None})
    content = json.dumps(result, indent=1).encode()
    log_files(run_id, {"drift/report.html": page.encode(), "drift/result.json": content})
    finish_run(run_id)
    return run_id


def log_trials(experiment_id: str, parent: str, trials: Sequence[TrackedTrial]) -> list[str]:
    """Log each trial as a run nested under `parent`, on the data that the parent is on, and return their ids.

    A trial has one run: called again for it, as by a retried task, this completes the one there is.
    """
    client = MlflowClient()
    children = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=50_000)
    logged = {child.data.tags.get("trial.number"): str(child.info.run_id) for child in children}
    above = client.get_run(parent)
    data = {name: value for name, value in above.data.tags.items() if name.startswith("data.")}
    run_ids = []
    for trial in trials:
        run_id = logged.get(str(trial.number))
        if run_id is None:
            tags = {"mlflow.parentRunId": parent, "trial.state": trial.state, "trial.number": str(trial.number), **data}
            run = client.create_run(
                experiment_id, start_time=trial.start_ms, run_name=f"trial {trial.number}", tags=tags
            )
            run_id = str(run.info.run_id)
            if above.inputs is not None and above.inputs.dataset_inputs:
                client.log_inputs(run_id, above.inputs.dataset_inputs)
        value = [] if trial.value is None else [Metric("objective", trial.value, trial.end_ms, 0)]
        curve = [Metric("val/accuracy", y, trial.end_ms, x) for x, y in sorted(trial.intermediate.items())]
        client.log_batch(
            run_id,
            metrics=value + curve,
            params=[Param(name, str(setting)) for name, setting in trial.params.items()],
        )
        client.set_terminated(run_id, "FINISHED", trial.end_ms)
        run_ids.append(run_id)
    return run_ids


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; lists as JSON."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time: two that create the same database at once break it."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
