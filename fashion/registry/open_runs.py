"""Which MLflow runs are open, and ending those whose owner has ended. Knows no metrics and no flow.

The process that runs a flow owns what its tasks open: it holds a folder of this home for as long as it lives, and each
run has a tag with the folder's name. Whatever kills the owner, the next connection from this home finds the folder
without its owner, and ends the runs. Runs of other machines and of a cluster's pods are ended by age.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from fashion.home import Home
from fashion.storage import owned
from fashion.storage.servers import without_password

VARIABLE = "FASHION_OWNER"
"""Holds the owner's folder, for the tasks that it starts."""
OWNER, UNTIL = "owner", "owner.until"
"""Tags of a run: its owner, and the time in ms after which nobody can still be at work on it."""
LONGEST_STEP_MS = 7 * 24 * 3600 * 1000
KILLED, FAILED = "KILLED", "FAILED"


@contextlib.contextmanager
def owning(home: Home) -> Iterator[Path]:
    """Own the runs that this process and its children open in the block. Yields the folder that says so."""
    with owned.claim(_parent(home)) as folder:
        os.environ[VARIABLE] = str(folder)
        try:
            yield folder
        finally:
            del os.environ[VARIABLE]


def tags(experiment_id: str) -> dict[str, str]:
    """Tags of a run that is opened or continued now; noted with the owner before the run exists.

    Args:
        experiment_id: of the run.
    """
    import mlflow

    until = {UNTIL: str(int(time.time() * 1000) + LONGEST_STEP_MS)}
    folder = os.environ.get(VARIABLE)
    if folder is None or not Path(folder).is_dir():  # in a pod
        return until
    with Path(folder, "experiments").open("a") as file:
        file.write(f"{experiment_id} {without_password(mlflow.get_tracking_uri())}\n")
    return {**until, OWNER: Path(folder).name}


def end_of(folder: Path, status: str) -> None:
    """End the open runs of an owner, in the store that MLflow is connected to.

    Args:
        folder: of the owner.
        status: KILLED or FAILED.
    """
    import mlflow
    from mlflow import MlflowClient

    noted = folder / "experiments"
    here = without_password(mlflow.get_tracking_uri())
    lines = {tuple(line.split(" ", 1)) for line in (noted.read_text().splitlines() if noted.exists() else [])}
    experiments = sorted(experiment for experiment, store in lines if store == here)
    if experiments:
        client = MlflowClient()
        for run in client.search_runs(experiments, f"tags.{OWNER} = '{folder.name}' and attributes.status = 'RUNNING'"):
            client.set_terminated(run.info.run_id, status)


def has_opened(folder: Path) -> bool:
    """True if an owner or its tasks opened a run."""
    return (folder / "experiments").exists()


def leave(folder: Path, status: str) -> None:
    """Let the next connection end an owner's runs, as when their server cannot be reached now.

    Args:
        folder: of the owner.
        status: KILLED or FAILED.
    """
    (folder / "left").write_text(status)


def end_abandoned(home: Home) -> None:
    """End the runs of owners that were killed, in the store that MLflow is connected to."""

    def end(folder: Path) -> None:
        left = folder / "left"
        end_of(folder, left.read_text() if left.exists() else KILLED)

    owned.clear_abandoned(_parent(home), first=end)


def end_expired(experiment_id: str) -> None:
    """End the runs of an experiment that nobody can still be at work on, as after a pod was lost."""
    from mlflow import MlflowClient

    client, now = MlflowClient(), int(time.time() * 1000)
    for run in client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
        if int(run.data.tags.get(UNTIL, now)) < now:
            client.set_terminated(run.info.run_id, KILLED)


def _parent(home: Home) -> Path:
    return home.root / "open-runs"
