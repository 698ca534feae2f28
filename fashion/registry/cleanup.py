"""Which runs the registry needs, which failed long ago, and their removal by MLflow's own `gc`."""

import contextlib
import io
import time
import urllib.parse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from fashion.home import Home
from fashion.registry.versions import CHALLENGER, CHAMPION

DAY_MS = 86_400_000
PAGE = 1000


@dataclass(frozen=True)
class NeededVersions:
    """What registered versions refer to."""

    versions: frozenset[tuple[str, int]]
    """Name of the registered model and number of those that are or were champion, and of challengers."""
    mlflow_runs: frozenset[str]
    flow_runs: frozenset[str]
    """Metaflow's, as `TrainFlow/12`."""


@dataclass(frozen=True)
class FailedRun:
    """An MLflow run that may go, with the runs nested under it."""

    run_ids: tuple[str, ...]
    """Its own id first."""
    name: str
    age_days: float
    """Since its end."""
    folders: tuple[Path, ...]
    """Of artifacts on this machine."""


def needed() -> NeededVersions:
    """Look at all versions of all registered models."""
    client = MlflowClient()
    found, runs, flows = set(), set(), set()
    for model in client.search_registered_models(max_results=PAGE):
        aliased = {int(number) for alias, number in model.aliases.items() if alias in (CHAMPION, CHALLENGER)}
        for version in client.search_model_versions(f"name = '{model.name}'"):
            if int(version.version) in aliased or "promoted.time" in version.tags:
                found.add((str(model.name), int(version.version)))
            runs.add(str(version.run_id))
            flows.add(version.tags.get("metaflow_run_id", ""))
    return NeededVersions(frozenset(found), frozenset(runs), frozenset(flows))


def failed_runs(home: Home, days: float, *, keep: Collection[str]) -> list[FailedRun]:
    """Return runs that failed, were killed, or were deleted in the UI long enough ago.

    Args:
        home: with the address of the tracking store, which is a database.
        days: since they ended, or were deleted.
        keep: ids of runs that stay, and with them those that they are nested under.
    """
    client = MlflowClient()
    experiments = [each.experiment_id for each in client.search_experiments(view_type=ViewType.ALL)]
    deleted = _store(home)._get_deleted_runs(older_than=int(days * DAY_MS))
    found = [client.get_run(run_id) for run_id in deleted]
    now = time.time() * 1000
    for status in ("FAILED", "KILLED"):
        ended = _search(client, experiments, f"attributes.status = '{status}'", ViewType.ACTIVE_ONLY)
        found += [run for run in ended if now - (run.info.end_time or run.info.start_time) >= days * DAY_MS]
    runs, covered = [], set(keep)
    for run in found:
        nested = _search(client, experiments, f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", ViewType.ALL)
        family = [run, *nested]
        if run.info.run_id in covered or any(each.info.run_id in keep for each in nested):
            continue
        covered |= {each.info.run_id for each in family}
        folders = tuple(filter(None, (_folder(each.info.artifact_uri) for each in family)))
        age = (now - (run.info.end_time or run.info.start_time)) / DAY_MS
        runs.append(FailedRun(tuple(str(each.info.run_id) for each in family), str(run.info.run_name), age, folders))
    return runs


def remove(home: Home, run_ids: Sequence[str]) -> None:
    """Remove runs for good, with their artifacts and the models that they logged.

    MLflow's command `mlflow gc` does the same, and removes each experiment that was deleted in the UI besides, with
    whatever a registered version needs in it. Here its function is told to leave experiments alone.

    Args:
        home: with the address of the tracking store, which is a database.
        run_ids: of runs that no registered version refers to.
    """
    from mlflow import cli

    client = MlflowClient()
    models: list[str] = []
    for run_id in run_ids:
        experiment = client.get_run(run_id).info.experiment_id
        logged = client.search_logged_models([experiment], f"source_run_id = '{run_id}'", max_results=50)
        models += [str(model.model_id) for model in logged]
        client.delete_run(run_id)
    for model_id in models:
        client.delete_logged_model(model_id)
    folders = [_folder(client.get_run(run_id).info.artifact_uri) for run_id in run_ids]
    with contextlib.redirect_stdout(io.StringIO()):
        cli._gc_tracking_resources(
            backend_store=_store(home),
            run_ids=list(run_ids),
            experiment_ids=None,
            logged_model_ids=models,
            older_than=None,
            time_delta=0,
            skip_experiments=True,
            skip_logged_models=False,
        )
    for folder in filter(None, folders):
        with contextlib.suppress(OSError):  # it holds something else
            folder.rmdir()


def _store(home: Home) -> Any:
    # The client deletes runs, but does not purge them, as `mlflow gc` does with this store.
    from mlflow.tracking._tracking_service.utils import _get_store

    return _get_store(home.tracking_uri)  # type: ignore[no-untyped-call]


def _search(client: MlflowClient, experiments: list[str], which: str, view: int) -> list[Run]:
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(experiments, which, view, max_results=PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _folder(address: str) -> Path | None:
    """The folder of a run's artifacts; None where they are not on this machine."""
    if not address.startswith("file://"):
        return None
    return Path(urllib.parse.unquote(urllib.parse.urlparse(address).path)).parent
