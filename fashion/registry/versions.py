"""Registered versions of the model: lineage, aliases, promotion and rollback. Knows nothing of how one is judged.

fashion registry list
fashion registry promote 7 --reason "won the shadow test"
fashion registry rollback --reason "users report shirts as dresses"
"""

import datetime
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

import fashion
from fashion.model import package

CHAMPION = "champion"
CHALLENGER = "challenger"
MODEL_NAME = "fashion-classifier"
LINEAGE = ("architecture", "data.digest", "git_commit", "metaflow_run_id", "mlflow_run_id")
"""Tags that say where a version came from."""
NOTES = ("promoted.reason", "promoted.replaced", "refused.reason", "rolled_back.reason")
"""Tags that say what was decided about it."""
REQUIREMENTS = ("numpy", "onnxruntime", "pydantic", "scipy")
"""What loading a version needs, installed at the versions in use."""


class RegistryError(ValueError):
    """A version or alias that is not there. The message says what is, or what to do."""


ERRORS = (RegistryError, MlflowException)
"""What any function here raises where the registry lacks what is asked for, or cannot be asked."""


@dataclass(frozen=True)
class Version:
    """A registered version and where it came from."""

    number: int
    aliases: tuple[str, ...]
    created: datetime.datetime
    """UTC."""
    source: str
    """MLflow address of the model's files."""
    mlflow_run_id: str
    tags: Mapping[str, str]
    """Lineage, metrics and verdict."""


def log_package(run_id: str, folder: Path) -> str:
    """Log a model package as the run's MLflow model and return the model's address.

    Raises:
        fashion.model.package.DamagedPackage: the folder is no intact package.
    """
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    contents = package.read(folder)
    shape = (-1, contents.size, contents.size) + ((contents.channels,) if contents.channels > 1 else ())
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), shape)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, len(contents.class_names)))]),
    )
    with mlflow.start_run(run_id=run_id), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*input example")  # the signature says it all
        logged = mlflow.pyfunc.log_model(
            name="model",
            loader_module="fashion.pyfunc",
            data_path=str(folder),
            code_paths=[str(Path(fashion.__file__).parent)],
            pip_requirements=_pinned(REQUIREMENTS),
            signature=signature,
            metadata={"class_names": list(contents.class_names)},
        )
    MlflowClient().update_run(run_id, status="RUNNING")  # leaving the block has ended it
    return str(logged.model_uri)


def register(model_uri: str, *, run_id: str, tags: Mapping[str, str], name: str = MODEL_NAME) -> Version:
    """Register a logged model as a new version with the alias `challenger`.

    A run has one version: called again for it, as by a retried task, this returns the one there is.
    """
    client = MlflowClient()
    for version in list_versions(name):
        if version.mlflow_run_id == run_id:
            return version
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    created = client.create_model_version(name, model_uri, run_id=run_id, tags=dict(tags))
    client.set_registered_model_alias(name, CHALLENGER, str(created.version))
    return get(str(created.version), name=name)


def list_versions(name: str = MODEL_NAME) -> list[Version]:
    """All versions, newest first; none where nothing is registered."""
    client = MlflowClient()
    found = client.search_registered_models(f"name = '{name}'")
    if not found:
        return []
    aliases = found[0].aliases
    entries = client.search_model_versions(f"name = '{name}'")
    return sorted((_version(entry, aliases) for entry in entries), key=lambda v: v.number, reverse=True)


def get(which: str, name: str = MODEL_NAME) -> Version:
    """The version of a number or an alias.

    Raises:
        RegistryError: there is none.
    """
    known = list_versions(name)
    for version in known:
        if which in version.aliases or which == str(version.number):
            return version
    if not known:
        raise RegistryError(f"no version of {name} is registered yet: run `make train` first")
    if which == CHAMPION:
        raise RegistryError(
            f"{name} has no champion: `make train` makes one where the gate promotes, `fashion registry "
            f"promote {known[0].number} --reason ...` makes one by hand"
        )
    raise RegistryError(
        f"{name} has no version or alias {which!r}; it has versions "
        f"{', '.join(str(version.number) for version in known)} and aliases "
        f"{', '.join(sorted({alias for version in known for alias in version.aliases})) or '(none)'}"
    )


def champion(name: str = MODEL_NAME) -> Version | None:
    """The version that serves, if there is one."""
    return next((version for version in list_versions(name) if CHAMPION in version.aliases), None)


def previous_champion(version: Version, *, name: str = MODEL_NAME) -> Version | None:
    """The version that was champion before this one was promoted, if there was one."""
    number = version.tags.get("promoted.replaced")
    return None if number is None else get(number, name)


def fetch(version: Version, folder: Path) -> package.Package:
    """Copy a version's package into `folder` and verify it.

    Raises:
        fashion.model.package.DamagedPackage: what is stored is not what was registered.
    """
    local = Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder)))
    try:
        return package.read(next(local.rglob(package.MANIFEST), local / package.MANIFEST).parent)
    except package.DamagedPackage as error:
        raise package.DamagedPackage(f"version {version.number}, stored at {version.source}: {error}") from None


def promote(version: Version, *, reason: str, name: str = MODEL_NAME) -> Version:
    """Make a version the champion, remembering the one it replaces for `rollback`.

    Raises:
        RegistryError: it is the champion already, or no reason is given.
    """
    if not reason.strip():
        raise RegistryError("promotion needs a reason: it stays with the version")
    current = champion(name)
    if current is not None and current.number == version.number:
        raise RegistryError(f"version {version.number} is the champion already")
    client = MlflowClient()
    number = str(version.number)
    client.set_model_version_tag(name, number, "promoted.reason", reason)
    client.set_model_version_tag(name, number, "promoted.time", _now())
    if current is not None:
        client.set_model_version_tag(name, number, "promoted.replaced", str(current.number))
    # The alias last: it is the one change that others see, and it is atomic.
    client.set_registered_model_alias(name, CHAMPION, number)
    if CHALLENGER in get(number, name).aliases:  # another run may have registered a newer one since
        client.delete_registered_model_alias(name, CHALLENGER)
    return get(number, name)


def set_tags(version: Version, tags: Mapping[str, str], *, name: str = MODEL_NAME) -> None:
    """Set tags of a version."""
    client = MlflowClient()
    for key, value in tags.items():
        client.set_model_version_tag(name, str(version.number), key, value)


def reject(version: Version, *, reason: str, name: str = MODEL_NAME) -> Version:
    """Keep a challenger as it is, with the reason why it was not promoted."""
    client = MlflowClient()
    client.set_model_version_tag(name, str(version.number), "refused.reason", reason)
    client.set_model_version_tag(name, str(version.number), "refused.time", _now())
    return get(str(version.number), name)


def rollback(*, reason: str, name: str = MODEL_NAME) -> Version:
    """Make the version that the champion replaced the champion again. Called again, it goes back further.

    Raises:
        RegistryError: there is no champion, or it replaced none.
    """
    if not reason.strip():
        raise RegistryError("rollback needs a reason: it stays with the version")
    current = champion(name)
    if current is None:
        raise RegistryError(f"{name} has no champion to roll back: run `make train` first")
    previous = previous_champion(current, name=name)
    if previous is None:
        raise RegistryError(f"version {current.number} replaced no other: there is nothing to roll back to")
    client = MlflowClient()
    client.set_model_version_tag(name, str(current.number), "rolled_back.reason", reason)
    client.set_model_version_tag(name, str(current.number), "rolled_back.time", _now())
    client.set_registered_model_alias(name, CHAMPION, str(previous.number))
    return get(str(previous.number), name)


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
