"""Which registered versions were trained or judged on a user's picture: their runs list its digest."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fashion.registry import versions

FEEDBACK = "data/feedback.csv"
"""The artifact of a run that lists pictures of users: sha256, label, part."""


@dataclass(frozen=True)
class Learnt:
    """A version that had a picture."""

    name: str
    """Of the registered model."""
    number: int
    part: str
    """`train`, or `held out`: the gate compared it on the picture."""


def versions_with(image_sha256: str) -> list[Learnt]:
    """Return the versions of all registered models whose feedback had a picture.

    Args:
        image_sha256: of the picture's pixels.

    Raises:
        mlflow.exceptions.MlflowException: the registry or an artifact cannot be read.
    """
    client, found = MlflowClient(), list[Learnt]()
    names = [model.name for model in client.search_registered_models(max_results=1000)]
    for name in sorted(names):
        for version in versions.list_versions(name):
            part = _part(client, version.mlflow_run_id, image_sha256)
            if part is not None:
                found.append(Learnt(name, version.number, part))
    return found


def _part(client: MlflowClient, run_id: str, image_sha256: str) -> str | None:
    try:
        if "feedback" not in client.get_run(run_id).data.tags:
            return None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # the run was deleted for good
    with tempfile.TemporaryDirectory() as folder:
        table = Path(client.download_artifacts(run_id, FEEDBACK, folder)).read_text()
    for line in table.splitlines():
        sha256, _, rest = line.partition(",")
        if sha256 == image_sha256:
            return rest.partition(",")[2]
    return None
