"""Which registered versions were trained or judged on users' pictures: their runs list the digests."""

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fashion.registry import artifacts, history, versions

FEEDBACK = "data/feedback.csv"
"""The artifact of a run that lists pictures of users: sha256, label, part."""


@dataclass(frozen=True)
class VersionThatLearnt:
    """A version that had a picture."""

    name: str
    """Of the registered model."""
    number: int
    part: str
    """`train`, or `held out`: the gate compared it on the picture."""


def versions_with(image_sha256: str) -> list[VersionThatLearnt]:
    """Return the versions of all registered models whose feedback had a picture.

    Args:
        image_sha256: of the picture's pixels.

    Raises:
        mlflow.exceptions.MlflowException: the registry or an artifact cannot be read.
    """
    client, found = MlflowClient(), list[VersionThatLearnt]()
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    for name in sorted(names):
        for version in versions.list_versions(name):
            part = _part(client, version.mlflow_run_id, image_sha256)
            if part is not None:
                found.append(VersionThatLearnt(name, version.number, part))
    return found


@dataclass(frozen=True)
class RolledBack:
    """A version that was rolled back, and what it alone had learnt."""

    number: int
    since_us: int
    """Microseconds since 1970, UTC."""
    reason: str
    pictures: frozenset[str]
    """sha256 of pictures of users that it was trained on and the present champion was not."""


def rolled_back(name: str) -> list[RolledBack]:
    """Return the versions of a registered model that were rolled back and not promoted since.

    Args:
        name: of the registered model.

    Raises:
        mlflow.exceptions.MlflowException: the registry or an artifact cannot be read.
        fashion.registry.versions.RegistryError: the history of champions cannot be read.
    """
    known = history.read(name)
    client, found = MlflowClient(), list[RolledBack]()
    champion = known.known.get(known.champion) if known.champion is not None else None
    kept = frozenset[str]() if champion is None else _trained_on(client, champion.mlflow_run_id)
    undone: dict[int, history.Change] = {}
    for change in known.changes:
        if change.event == "rolled back" and change.replaced is not None:
            undone[change.replaced] = change
        if change.version is not None:
            undone.pop(change.version, None)  # it is the champion again
    for number, change in undone.items():
        version = known.known.get(number)
        if version is None:
            continue
        moment = datetime.datetime.fromisoformat(change.time)
        pictures = _trained_on(client, version.mlflow_run_id) - kept
        found.append(RolledBack(version.number, int(moment.timestamp() * 1e6), change.reason, pictures))
    return found


def _trained_on(client: MlflowClient, run_id: str) -> frozenset[str]:
    lines = (line.split(",") for line in (_table(client, run_id) or "").splitlines())
    return frozenset(fields[0] for fields in lines if fields[-1] == "train")


def _part(client: MlflowClient, run_id: str, image_sha256: str) -> str | None:
    for line in (_table(client, run_id) or "").splitlines():
        sha256, _, rest = line.partition(",")
        if sha256 == image_sha256:
            return rest.partition(",")[2]
    return None


def _table(client: MlflowClient, run_id: str) -> str | None:
    """The list of pictures of a run; None where it had none, or was deleted for good, or a version is of no run."""
    if not run_id:
        return None
    try:
        if "feedback" not in client.get_run(run_id).data.tags:
            return None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    artifacts.check(run_id)
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, FEEDBACK, folder)).read_text()
