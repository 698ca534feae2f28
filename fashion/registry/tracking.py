"""MLflow runs: experiments, params, metrics, artifacts. Knows no registered versions: `versions` does."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Metric, Param, RunTag

from fashion.config.schema import ConfigError
from fashion.home import Home
from fashion.registry import artifacts, open_runs, server
from fashion.state.relocation import ARTIFACTS
from fashion.storage import sqlite
from fashion.storage.servers import is_database, limit_requests, without_password

QUIET = ("alembic", "mlflow.pyfunc", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store")
"""Loggers whose news is of no use to a reader of a flow's output."""
MAX_BATCH = 100
"""Params of one request, at most: MLflow's limit."""


@dataclass(frozen=True)
class TrackedTrial:
    """A finished Optuna trial, as it is logged."""

    number: int
    params: Mapping[str, Any]
    state: str
    value: float | None
    """Objective; None for a trial without one."""
    intermediate: Mapping[int, float]
    """Percent of the schedule -> validation accuracy."""
    start_ms: int
    end_ms: int


def set_store(home: Home) -> None:
    """Point MLflow at the tracking store. Connects to nothing."""
    mlflow.set_tracking_uri(home.tracking_uri)
    if is_database(home.tracking_uri) and sqlite.path_of(home.tracking_uri) is None:
        limit_requests()
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def connect(home: Home) -> None:
    """Connect to the tracking store, and end the runs of flows of this home that were killed.

    Creates or upgrades a local database, one process at a time.

    Raises:
        fashion.storage.servers.ServerUnavailable: the store is on a server that cannot be used.
        sqlite3.DatabaseError: the local database is damaged, or locked by another process.
    """
    set_store(home)
    if (path := sqlite.path_of(home.tracking_uri)) is not None:
        sqlite.check(path)  # MLflow tries a damaged one again and again, for minutes
        if path.exists() and path.stat().st_size == 0 and any((home.root / ARTIFACTS).glob("*/*")):
            raise sqlite.damaged("it is empty, and artifacts of runs are there", path)
        with _one_process(home.root):
            MlflowClient().search_experiments(max_results=1)
    else:
        server.check(home.tracking_uri)
    open_runs.end_abandoned(home)


def get_or_create_experiment(home: Home, name: str) -> str:
    """Return the id of an experiment, which is created where it is missing.

    A server chooses where its artifacts are. Where runs are in a database that is opened from here, they are in
    `home.artifacts`: MLflow's default would depend on the working directory.

    Raises:
        ConfigError: the experiment was deleted, which keeps its name taken.
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket of its artifacts cannot be used.
    """
    client = MlflowClient()
    with _one_process(home.root):
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
            raise ConfigError(
                f"tracking.experiment={name} was deleted in MLflow: restore it with `mlflow experiments restore "
                f"--experiment-id {found.experiment_id}`, or give another name"
            )
        if found is not None:
            artifacts.check_address(found.artifact_location)
            return str(found.experiment_id)
        location = f"{home.artifacts}/{_folder_of(name)}" if is_database(home.tracking_uri) else None
        artifacts.check_address(location or "")
        # Without this tag the UI opens on the view for language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(client.create_experiment(name, location, tags))


def start_run(
    experiment_id: str,
    name: str,
    tags: Mapping[str, str],
    *,
    parent: str | None = None,
    resumes: Sequence[str] = (),
) -> str:
    """Create a run and return its id. It stays open across processes until `finish_run`.

    A Metaflow run has one run: called again with the same tag `metaflow_run_id`, as by a retried task, this continues
    the existing one. So it does with the run of an earlier Metaflow run, which then gets the new name and tags.

    Args:
        experiment_id: what `get_or_create_experiment` returned.
        name: the run's name.
        tags: the run's tags.
        parent: id of the run that this one is nested under.
        resumes: tags `metaflow_run_id` of earlier Metaflow runs, the latest first.
    """
    client = MlflowClient()
    known = [tags["metaflow_run_id"], *resumes] if parent is None and "metaflow_run_id" in tags else []
    for each in known:
        same = f"tags.metaflow_run_id = '{each}'"
        if found := client.search_runs([experiment_id], same, max_results=1, order_by=["attributes.start_time"]):
            run_id = str(found[0].info.run_id)
            continue_run(experiment_id, run_id)
            if each in resumes:
                client.update_run(run_id, name=name)
                log_tags(run_id, tags)
            return run_id
    nesting = {} if parent is None else {"mlflow.parentRunId": parent}
    owner = open_runs.tags(experiment_id)
    run = client.create_run(experiment_id, run_name=name, tags={**tags, **nesting, **owner})
    return str(run.info.run_id)


def continue_run(experiment_id: str, run_id: str) -> None:
    """Open a run again that an earlier attempt, or the run that is resumed, may have ended.

    Args:
        experiment_id: of the run.
        run_id: of the run.
    """
    log_tags(run_id, open_runs.tags(experiment_id))
    MlflowClient().update_run(run_id, status="RUNNING")


def discard_run(run_id: str) -> None:
    """Put a run into MLflow's bin, ended as KILLED."""
    end_run(run_id, open_runs.KILLED)
    MlflowClient().delete_run(run_id)


def run_page(run_id: str) -> str | None:
    """Address of a run's page in the UI of a server; None where the store is a database."""
    address = without_password(mlflow.get_tracking_uri()).rstrip("/")
    if is_database(address):
        return None
    return f"{address}/#/experiments/{MlflowClient().get_run(run_id).info.experiment_id}/runs/{run_id}"


def finish_run(run_id: str, *, failed: bool = False) -> None:
    """End a run."""
    end_run(run_id, "FAILED" if failed else "FINISHED")


def end_run(run_id: str, status: str) -> None:
    """End a run as FINISHED, FAILED or KILLED."""
    MlflowClient().set_terminated(run_id, status)


@contextlib.contextmanager
def failing(run_id: str) -> Iterator[None]:
    """End a run when the block raises: FAILED, or KILLED by a signal. A retry that succeeds can still finish it.

    Raises:
        fashion.storage.servers.ServerUnavailable: MLflow's server could not be reached; the run stays open.
    """
    try:
        yield
    except BaseException as error:
        if (away := server.unavailable(error, mlflow.get_tracking_uri())) is not None:
            raise away from error
        end_run(run_id, open_runs.FAILED if isinstance(error, Exception) else open_runs.KILLED)
        raise


def log_params(run_id: str, config: Mapping[str, Any]) -> None:
    """Log nested settings under dotted names."""
    client = MlflowClient()
    params = [Param(name, str(value)) for name, value in flatten(config).items()]
    for start in range(0, len(params), MAX_BATCH):
        client.log_batch(run_id, params=params[start : start + MAX_BATCH])


def run_records(run_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """The params of a run, as text (see `log_params`), and its tags."""
    data = MlflowClient().get_run(run_id).data
    return dict(data.params), dict(data.tags)


def log_metrics(
    run_id: str,
    metrics: Mapping[str, float],
    *,
    step: int = 0,
    time_ms: int | None = None,
    model_id: str | None = None,
    dataset: tuple[str, str] | None = None,
) -> None:
    """Log finite values; the names of NaN and infinite ones go into the tag `not_finite`.

    Args:
        run_id: of the MLflow run.
        metrics: name -> value.
        step: position on the metrics' curves.
        time_ms: when they were measured; now by default.
        model_id: MLflow's id of the logged model that they are of.
        dataset: name and digest of the logged data set that they were measured on.
    """
    now = int(time.time() * 1000) if time_ms is None else time_ms
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    tags = [RunTag("not_finite", ", ".join(sorted(set(metrics) - set(finite))))] if len(finite) < len(metrics) else []
    name, digest = (None, None) if dataset is None else dataset
    of = {"model_id": model_id, "dataset_name": name, "dataset_digest": digest, "run_id": run_id}
    MlflowClient().log_batch(run_id, [Metric(key, value, now, step, **of) for key, value in finite.items()], tags=tags)


def assign_point(run_id: str, name: str, *, step: int, model_id: str, dataset: tuple[str, str]) -> None:
    """Say which model and which data set one point of a run's curve is of; nothing where the run has no such point.

    MLflow keeps a data set of the metrics of models alone, and a curve is logged before its model is. The point is
    logged again as it is, which adds none to the curve.

    Args:
        run_id: of the MLflow run.
        name: of the metric.
        step: of the point.
        model_id: MLflow's id of the logged model.
        dataset: name and digest of the logged data set.
    """
    for point in MlflowClient().get_metric_history(run_id, name):
        if point.step == step:
            log_metrics(
                run_id, {name: point.value}, step=step, time_ms=point.timestamp, model_id=model_id, dataset=dataset
            )


def log_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run."""
    MlflowClient().log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def log_dataset(run_id: str, *, name: str, digest: str, source: str, images: Any, labels: Any, context: str) -> None:
    """Log a split of the data as an MLflow data set.

    Args:
        run_id: the run.
        name: the data set's name.
        digest: its version, at most 36 characters.
        source: where it is from.
        images: (N, H, W) or (N, H, W, C) uint8.
        labels: (N,)
        context: what it is used for: training, validation or test.
    """
    from mlflow.data.numpy_dataset import from_numpy
    from mlflow.entities import DatasetInput, InputTag

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a path may be resolved as several kinds of source
        data = from_numpy(images, targets=labels, source=source, name=name, digest=digest)
    used = [InputTag("mlflow.data.context", context)]
    MlflowClient().log_inputs(run_id, [DatasetInput(data._to_mlflow_entity(), used)])


def log_files(run_id: str, files: Mapping[str, bytes]) -> None:
    """Log artifacts, given as path -> content.

    Raises:
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket that they belong to cannot be used.
    """
    artifacts.check(run_id)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        MlflowClient().log_artifacts(run_id, folder)


def read_file(run_id: str, name: str) -> bytes | None:
    """Return the content of an artifact; None where the run has none at this path.

    Raises:
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket of the artifacts cannot be used.
    """
    artifacts.check(run_id)
    client = MlflowClient()
    if name not in {entry.path for entry in client.list_artifacts(run_id, name.rpartition("/")[0] or None)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes()


def log_table(run_id: str, name: str, rows: Sequence[Any]) -> None:
    """Log dataclass instances of one class as a table, one column for each field.

    An existing table is left alone: MLflow would append to what a task logged before it was retried.

    Args:
        run_id: the run.
        name: the artifact's path, which ends in `.json`.
        rows: at least one instance.

    Raises:
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket of the artifacts cannot be used.
    """
    artifacts.check(run_id)
    client = MlflowClient()
    if name in {entry.path for entry in client.list_artifacts(run_id, name.rpartition("/")[0] or None)}:
        return
    columns: dict[str, list[Any]] = {
        field.name: [getattr(row, field.name) for row in rows] for field in dataclasses.fields(rows[0])
    }
    client.log_table(run_id, columns, name)


def log_image(run_id: str, key: str, png: bytes, *, step: int) -> None:
    """Log one image of a series, which the UI shows with a slider over steps.

    Args:
        run_id: the run.
        key: the series.
        png: the image.
        step: its place in the series.

    Raises:
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket of the artifacts cannot be used.
    """
    import io

    from PIL import Image

    artifacts.check(run_id)
    MlflowClient().log_image(run_id, Image.open(io.BytesIO(png)).convert("RGB"), key=key, step=step)


def log_trials(experiment_id: str, parent: str, trials: Sequence[TrackedTrial]) -> list[str]:
    """Log each trial as a run nested under `parent`, with the parent's dataset.

    A trial has one run: called again for the same trial, as by a retried task, this completes the existing one.

    Args:
        experiment_id: what `get_or_create_experiment` returned.
        parent: id of the parent run.
        trials: finished trials.

    Returns:
        The runs' ids, in the order of `trials`.
    """
    client = MlflowClient()
    children = client.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'", max_results=50_000)
    logged = {child.data.tags.get("trial.number"): str(child.info.run_id) for child in children}
    parent_run = client.get_run(parent)
    data = {name: value for name, value in parent_run.data.tags.items() if name.startswith("data.")}
    run_ids = []
    for trial in trials:
        run_id = logged.get(str(trial.number))
        if run_id is None:
            tags = {"mlflow.parentRunId": parent, "trial.state": trial.state, "trial.number": str(trial.number)}
            tags |= {**data, **open_runs.tags(experiment_id)}
            run = client.create_run(
                experiment_id, start_time=trial.start_ms, run_name=f"trial {trial.number}", tags=tags
            )
            run_id = str(run.info.run_id)
            if parent_run.inputs is not None and parent_run.inputs.dataset_inputs:
                client.log_inputs(run_id, parent_run.inputs.dataset_inputs)
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
    """Flatten `{"a": {"b": 1}}` to `{"a.b": 1}`; lists become JSON."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = json.dumps(value) if isinstance(value, list | tuple) else value
    return flat


def _folder_of(experiment: str) -> str:
    """Folder of an experiment's artifacts: its name, unless that means something in a path or an address."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", experiment):
        return experiment
    digest = hashlib.sha256(experiment.encode()).hexdigest()[:8]
    return "-".join([*re.findall(r"[A-Za-z0-9_]+", experiment), digest])


@contextlib.contextmanager
def _one_process(folder: Path) -> Iterator[None]:
    """Run the block in one process at a time: two that create the same database at once break it."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
