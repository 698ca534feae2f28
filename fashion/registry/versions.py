"""Registered versions of the model: their files, lineage and aliases. Knows no gate and no service.

Which version becomes champion is a matter of `champions`.
"""

import datetime
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

import fashion
from fashion.config.names import MODEL_NAME
from fashion.model import package
from fashion.registry import artifacts, server, signatures
from fashion.storage.servers import ServerUnavailable

CHAMPION = "champion"
CHALLENGER = "challenger"
DIGEST = "package.digest"
"""Tag with the sha256 of a version's `package.json`, which holds the checksums of all its files. Older ones lack it."""
SIGNATURE = "package.signature"
"""Tag with a signature of the digest, where one was made: `fashion.registry.signatures`."""
LINEAGE = ("architecture", "data.digest", "git_commit", "metaflow_run_id", "mlflow_run_id")
"""Tags with a version's origin."""
NOTES = ("promoted.reason", "promoted.replaced", "refused.reason", "rolled_back.reason")
"""Tags with the decisions about a version."""
REQUIREMENTS = ("numpy", "onnxruntime", "pydantic", "scipy")
"""Packages that a registered version needs, pinned to the installed versions."""


class RegistryError(ValueError):
    """A version or alias does not exist, or the change makes no sense. The message names the remedy."""


ERRORS = (RegistryError, ServerUnavailable, artifacts.ArtifactsUnavailable, MlflowException)
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


def log_package(run_id: str, folder: Path, *, example: NDArray[np.uint8] | None = None) -> str:
    """Log a model package as the run's MLflow model, in place of what a killed task left of it.

    A run has one model: called again for the same run, as by a retried task, this returns the existing one. What a
    task left unfinished that was killed is deleted.

    Args:
        run_id: the MLflow run; it stays running.
        folder: the package.
        example: (N, H, W) or (N, H, W, C) pictures that MLflow shows as the model's input; None for none.

    Returns:
        The model's URI.

    Raises:
        fashion.model.package.DamagedPackage: the folder is not an intact package.
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket of the artifacts cannot be used.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    contents = package.read(folder)
    if (existing := _logged_model(run_id, contents.digest)) is not None:
        return existing
    artifacts.check(run_id)
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
            input_example=example,
            metadata={"class_names": list(contents.class_names)},
            tags={DIGEST: contents.digest},
        )
    MlflowClient().update_run(run_id, status="RUNNING")  # start_run has ended it
    return str(logged.model_uri)


def register(model_uri: str, *, run_id: str, tags: Mapping[str, str], name: str = MODEL_NAME) -> Version:
    """Register a logged model as a new version with the alias `challenger`, and the digest of its package.

    A run has one version: called again for the same run, as by a retried task, this returns the existing one, and
    gives it the alias if a killed task did not, unless a newer version has it or it was promoted.

    Args:
        model_uri: what `log_package` returned.
        run_id: the MLflow run that made the model.
        tags: lineage and metrics.
        name: the registered model.

    Raises:
        RegistryError: the key that signs packages cannot be used.
    """
    client = MlflowClient()
    known = list_versions(name)
    earlier = next((version for version in known if version.mlflow_run_id == run_id), None)
    if earlier is None:
        if not known and registered_model(name) is None:
            client.create_registered_model(name)
        model_id = model_id_of(model_uri)  # a server takes no source that only names a model
        digest = client.get_logged_model(model_id).tags.get(DIGEST)
        proven = {} if digest is None else {DIGEST: digest} | _signature(digest)
        created = client.create_model_version(
            name,
            model_uri,
            run_id=run_id,
            tags={**tags, **proven},
            model_id=model_id,
        )
    number = int(created.version) if earlier is None else earlier.number
    challenger = next((version.number for version in known if CHALLENGER in version.aliases), 0)
    if number > challenger and (earlier is None or "promoted.time" not in earlier.tags):
        client.set_registered_model_alias(name, CHALLENGER, str(number))
    return get(str(number), name)


def model_id_of(model_uri: str) -> str:
    """MLflow's id of a logged model, of what `log_package` returned."""
    return model_uri.removeprefix("models:/")


def registered_model(name: str = MODEL_NAME) -> RegisteredModel | None:
    """Return MLflow's registered model, with its aliases and tags; None where nothing is registered."""
    try:
        return MlflowClient().get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def versions_of(model: RegisteredModel) -> list[Version]:
    """Return the versions of a registered model, newest first, with the aliases that it had when it was read."""
    entries = MlflowClient().search_model_versions(f"name = '{model.name}'")
    return sorted((_version(entry, model.aliases) for entry in entries), key=lambda v: v.number, reverse=True)


def list_versions(name: str = MODEL_NAME) -> list[Version]:
    """Return all versions, newest first; an empty list where nothing is registered."""
    model = registered_model(name)
    return [] if model is None else versions_of(model)


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


def fetch(version: Version, folder: Path, *, may_be_unsigned: bool = False) -> package.Package:
    """Download a version's package into `folder`, and verify it.

    Its checksums, the registry's digest and, where keys are trusted, the signature must be right.

    Args:
        version: the version.
        folder: where its files go.
        may_be_unsigned: True to fetch what is to be signed.

    Raises:
        fashion.model.package.DamagedPackage: files are missing, or are not the registered ones.
        RegistryError: no trusted key has signed it.
        fashion.registry.artifacts.ArtifactsUnavailable: the bucket that they are in cannot be used.
        fashion.storage.servers.ServerUnavailable: MLflow's server cannot be reached.
    """
    where = f"version {version.number}, stored at {version.source}"
    try:
        artifacts.check_model(version.source)
        local = Path(mlflow.artifacts.download_artifacts(version.source, dst_path=str(folder)))
        fetched = package.read(next(local.rglob(package.MANIFEST), local / package.MANIFEST).parent)
    except package.DamagedPackage as error:
        raise package.DamagedPackage(f"{where}: {error}") from None
    except MlflowException as error:
        if (away := server.unavailable(error, mlflow.get_tracking_uri())) is not None:
            raise away from error
        raise package.DamagedPackage(f"{where}: its files cannot be fetched: {str(error).splitlines()[0]}") from None
    except FileNotFoundError as error:
        raise package.DamagedPackage(f"{where}: its files cannot be fetched: {error}") from None
    registered = version.tags.get(DIGEST)
    if registered not in (None, fetched.digest):
        raise package.DamagedPackage(
            f"{where}: its package has the digest {fetched.digest}, and {registered} was registered: it was exchanged"
        )
    if not may_be_unsigned:
        try:
            signatures.verify(fetched.digest, version.tags.get(SIGNATURE))
        except signatures.SignatureError as error:
            raise RegistryError(f"{where}: {error}") from None
    return fetched


def sign(version: Version, folder: Path, *, name: str = MODEL_NAME) -> None:
    """Sign a version that was registered without a signature, or with another key, by the key of this environment.

    Args:
        version: the version, whose package is fetched and verified first.
        folder: where its files go.
        name: of the registered model.

    Raises:
        RegistryError: there is no key, or it cannot be used.
        fashion.model.package.DamagedPackage: files are missing, or are not the registered ones.
    """
    digest = fetch(version, folder, may_be_unsigned=True).digest
    if not (signature := _signature(digest)):
        raise RegistryError(f"{signatures.SIGNING_KEY} is not set: {signatures.REMEDY}")
    set_tags(version, signature, name=name)


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


def _signature(digest: str) -> dict[str, str]:
    """The tag with the signature of a digest; empty where no key is set."""
    try:
        signature = signatures.sign(digest)
    except signatures.SignatureError as error:
        raise RegistryError(str(error)) from None
    return {} if signature is None else {SIGNATURE: signature}


def _logged_model(run_id: str, digest: str) -> str | None:
    """URI of the run's complete model of this package, or None. Other models that no version uses are deleted."""
    client = MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    used = {version.source for version in client.search_model_versions(f"run_id = '{run_id}'")}
    found = None
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.status == LoggedModelStatus.READY and model.tags.get(DIGEST) == digest:
            found = str(model.model_uri)
        elif model.model_uri not in used:
            client.delete_logged_model(model.model_id)
    return found


def _version(entry: ModelVersion, aliases: Mapping[str, str]) -> Version:
    number = int(entry.version)
    created = datetime.datetime.fromtimestamp(entry.creation_timestamp / 1000, datetime.UTC)
    mine = tuple(sorted(alias for alias, target in aliases.items() if int(target) == number))
    return Version(number, mine, created, entry.source or "", entry.run_id or "", dict(entry.tags))


def _pinned(names: Sequence[str]) -> list[str]:
    from importlib.metadata import version

    return [f"{name}=={version(name)}" for name in names]
