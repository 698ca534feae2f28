"""Registered versions of the model: lineage, aliases, promotion and rollback. Knows no gate and no service."""

import datetime
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

import fashion
from fashion.model import package
from fashion.storage.servers import ServerUnavailable

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL_NAME = "fashion-classifier"
LINEAGE = ("architecture", "data.digest", "git_commit", "metaflow_run_id", "mlflow_run_id")
"""Tags with a version's origin."""
NOTES = ("promoted.reason", "promoted.replaced", "refused.reason", "rolled_back.reason")
"""Tags with the decisions about a version."""
REQUIREMENTS = ("numpy", "onnxruntime", "pydantic", "scipy")
"""Packages that a registered version needs, pinned to the installed versions."""


class RegistryError(ValueError):
    """A version or alias does not exist, or the change makes no sense. The message names the remedy."""


ERRORS = (RegistryError, ServerUnavailable, MlflowException)
"""What the functions here raise where the registry lacks a version or cannot be reached."""


@dataclass(frozen=True)
class Version:
    """A registered version of the model."""

    number: int
    aliases: tuple[str, ...]
    created: datetime.datetime
    """UTC."""
    source: str
    """MLflow URI of the model's files."""
    mlflow_run_id: str
    tags: Mapping[str, str]
    """Lineage, metrics and decisions."""


def log_package(run_id: str, folder: Path) -> str:
    """Log a model package as the run's MLflow model.

    A run has one model: called again for the same run, as by a retried task, this returns the existing one. What a
    task left unfinished that was killed is deleted.

    Args:
        run_id: the MLflow run; it stays running.
        folder: the package.

    Returns:
        The model's URI.

    Raises:
        fashion.model.package.DamagedPackage: the folder is not an intact package.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    contents = package.read(folder)
    if (existing := _logged_model(run_id)) is not None:
        return existing
    shape = (-1, contents.size, contents.size) + ((contents.channels,) if contents.channels > 1 else ())
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(contents.class_names)))]),
    )
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature has the shapes and types
        logged = mlflow.pyfunc.log_model(
            name="model",
            loader_module="fashion.pyfunc",
            data_path=str(folder),
            code_paths=[str(Path(fashion.__file__).parent)],
            pip_requirements=_pinned(REQUIREMENTS),
            signature=signature,
            metadata={"class_names": list(contents.class_names)},
        )
    MlflowClient().update_run(run_id, status="RUNNING")  # start_run has ended it
    return str(logged.model_uri)


def register(model_uri: str, *, run_id: str, tags: Mapping[str, str], name: str = MODEL_NAME) -> Version:
    """Register a logged model as a new version with the alias `challenger`.

    A run has one version: called again for the same run, as by a retried task, this returns the existing one.

    Args:
        model_uri: what `log_package` returned.
        run_id: the MLflow run that made the model.
        tags: lineage and metrics.
        name: the registered model.
    """
    client = MlflowClient()
    for version in list_versions(name):
        if version.mlflow_run_id == run_id:
            return version
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    created = client.create_model_version(
        name,
        model_uri,
        run_id=run_id,
        tags=dict(tags),
        model_id=model_uri.removeprefix("models:/"),  # a server takes no source that only names a model
    )
    client.set_registered_model_alias(name, CHALLENGER, str(created.version))
    return get(str(created.version), name=name)


def list_versions(name: str = MODEL_NAME) -> list[Version]:
    """Return all versions, newest first; an empty list where nothing is registered."""
    client = MlflowClient()
    found = client.search_registered_models(f"name = '{name}'")
    if not found:
        return []
    aliases = found[0].aliases
    entries = client.search_model_versions(f"name = '{name}'")
    return sorted((_version(entry, aliases) for entry in entries), key=lambda v: v.number, reverse=True)


def get(which: str, name: str = MODEL_NAME) -> Version:
    """Return the version with a number or an alias.

    Args:
        which: `7` or `champion`.
        name: the registered model.

    Raises:
        RegistryError: there is no such version or alias.
    """
    known = list_versions(name)
    for version in known:
        if which in version.aliases or which == str(version.number):
            return version
    if not known:
        raise RegistryError(f"no version of {name} is registered yet: run `make train` first")
    if which == CHAMPION:
        raise RegistryError(
            f"{name} has no champion: `make train` promotes one that passes the gate, `fashion registry "
            f"promote {known[0].number} --reason ...` promotes one by hand"
        )
    raise RegistryError(
        f"{name} has no version or alias {which!r}; it has versions "
        f"{', '.join(str(version.number) for version in known)} and aliases "
        f"{', '.join(sorted({alias for version in known for alias in version.aliases})) or '(none)'}"
    )


def champion(name: str = MODEL_NAME) -> Version | None:
    """Return the champion, or None where there is none."""
    return next((version for version in list_versions(name) if CHAMPION in version.aliases), None)


def previous_champion(version: Version, *, name: str = MODEL_NAME) -> Version | None:
    """Return the version that was champion when this one was promoted, or None.

    Raises:
        RegistryError: that version was deleted.
    """
    number = version.tags.get("promoted.replaced")
    return None if number is None else get(number, name)


def fetch(version: Version, folder: Path) -> package.Package:
    """Download a version's package into `folder` and verify it.

    Raises:
        fashion.model.package.DamagedPackage: the stored files are not the registered ones.
        mlflow.exceptions.MlflowException: the files cannot be downloaded.
    """
    local = Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder)))
    try:
        return package.read(next(local.rglob(package.MANIFEST), local / package.MANIFEST).parent)
    except package.DamagedPackage as error:
        raise package.DamagedPackage(f"version {version.number}, stored at {version.source}: {error}") from None


def promote(version: Version, *, reason: str, name: str = MODEL_NAME) -> Version:
    """Make a version the champion, and store which one it replaces for `rollback`.

    Args:
        version: the new champion.
        reason: stored as a tag of the version.
        name: the registered model.

    Returns:
        The version with its new tags and alias.

    Raises:
        RegistryError: the version is the champion already, or the reason is empty.
    """
    if not reason.strip():
        raise RegistryError("promotion needs a reason, which is stored with the version: give --reason")
    current = champion(name)
    if current is not None and current.number == version.number:
        raise RegistryError(f"version {version.number} is already the champion")
    client = MlflowClient()
    number = str(version.number)
    client.set_model_version_tag(name, number, "promoted.reason", reason)
    client.set_model_version_tag(name, number, "promoted.time", _now())
    if current is not None:
        client.set_model_version_tag(name, number, "promoted.replaced", str(current.number))
    # The alias last: services follow it, and the change is atomic.
    client.set_registered_model_alias(name, CHAMPION, number)
    if CHALLENGER in get(number, name).aliases:  # another run may have registered a newer one since
        client.delete_registered_model_alias(name, CHALLENGER)
    return get(number, name)


def set_tags(version: Version, tags: Mapping[str, str], *, name: str = MODEL_NAME) -> None:
    """Set tags of a version.

    Args:
        version: the version.
        tags: name -> value; existing tags of the same names are replaced.
        name: of the registered model.
    """
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version.number), key, value)


def reject(version: Version, *, reason: str, name: str = MODEL_NAME) -> Version:
    """Store why a version was not promoted; its alias stays.

    Args:
        version: the challenger.
        reason: stored as a tag of the version.
        name: the registered model.
    """
    client = MlflowClient()
    client.set_model_version_tag(name, str(version.number), "refused.reason", reason)
    client.set_model_version_tag(name, str(version.number), "refused.time", _now())
    return get(str(version.number), name)


def rollback(*, reason: str, name: str = MODEL_NAME) -> Version:
    """Make the champion's predecessor the champion again. Called again, it goes back further.

    Args:
        reason: stored as a tag of the version that is rolled back.
        name: the registered model.

    Returns:
        The new champion.

    Raises:
        RegistryError: there is no champion, it has no predecessor, or the reason is empty.
    """
    if not reason.strip():
        raise RegistryError("rollback needs a reason, which is stored with the version: give --reason")
    current = champion(name)
    if current is None:
        raise RegistryError(f"{name} has no champion to roll back: run `make train` first")
    previous = previous_champion(current, name=name)
    if previous is None:
        raise RegistryError(
            f"version {current.number} has no predecessor to roll back to: promote another version instead"
        )
    client = MlflowClient()
    client.set_model_version_tag(name, str(current.number), "rolled_back.reason", reason)
    client.set_model_version_tag(name, str(current.number), "rolled_back.time", _now())
    client.set_registered_model_alias(name, CHAMPION, str(previous.number))
    return get(str(previous.number), name)


def _logged_model(run_id: str) -> str | None:
    """URI of a run's complete model, or None; incomplete ones are deleted."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY:
            return str(model.model_uri)
        client.delete_logged_model(model.model_id)
    return None


def _version(entry: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = int(entry.version)
    created = datetime.datetime.fromtimestamp(entry.creation_timestamp / 1000, datetime.UTC)
    mine = tuple(sorted(alias for alias, target in aliases.items() if int(target) == number))
    return Version(number, mine, created, entry.source or "", entry.run_id or "", dict(entry.tags))


def _pinned(names: Sequence[str]) -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in names]


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
