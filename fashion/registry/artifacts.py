"""The bucket of MLflow's artifacts, where clients use it themselves: whether it can be used. Knows no file of it."""

import functools
import re

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fashion.storage.address import open_store
from fashion.storage.blobs import StoreUnavailable

CLIENTS = ("google", "requests", "urllib3", "botocore", "boto3", "azure")
"""Libraries through which MLflow reaches buckets."""
REMEDY = "check the bucket and its credentials; then `resume`"


class ArtifactsUnavailable(StoreUnavailable):
    """MLflow's artifacts cannot be read or written."""


def check(run_id: str) -> None:
    """Ask the bucket of a run's artifacts, if it is Google's, for an object. To be called before it is used.

    This takes ten seconds at most. MLflow sets no limit: Google's client in it repeats for two minutes, and for longer
    where a server hangs.

    Raises:
        ArtifactsUnavailable: the bucket cannot be used.
    """
    check_address(_of_run(run_id))


def check_model(source: str) -> None:
    """Do the same for the artifacts of a registered version.

    Args:
        source: of the version: `models:/m-...`, or their address.

    Raises:
        ArtifactsUnavailable: the bucket cannot be used.
    """
    is_model = source.startswith("models:/")
    check_address(_of_model(source.removeprefix("models:/")) if is_model else source)


def check_address(address: str) -> None:
    """Do the same for an address of artifacts. Others than Google's are left alone.

    Raises:
        ArtifactsUnavailable: the bucket cannot be used.
    """
    if not address.startswith("gs://"):
        return
    try:
        open_store(address).exists("MLmodel")
    except StoreUnavailable as error:
        raise ArtifactsUnavailable(f"MLflow's artifacts cannot be read or written: {error}; {REMEDY}") from None


def unavailable(error: BaseException) -> ArtifactsUnavailable | None:
    """Return what to raise in place of an error of the bucket of MLflow's artifacts, which clients may use themselves.

    Args:
        error: what MLflow, or a client of a bucket that it uses, raised; None is returned for other errors.
    """
    text = " ".join(str(error).split())
    if isinstance(error, MlflowException):
        found = re.search(r"while (?:uploading|downloading) one or more artifacts (?:to|from) (\S+): \{?(.*)", text)
        if found is None:
            return None
        address, reason = found.groups()
    elif any(kind.__module__.partition(".")[0] in CLIENTS for kind in type(error).__mro__):
        address, reason = "the bucket", f"{type(error).__name__}: {text}"
    else:
        return None
    return ArtifactsUnavailable(
        f"MLflow's artifacts in {address.rstrip(':')} cannot be read or written ({reason[:200]}); {REMEDY}"
    )


@functools.cache
def _of_run(run_id: str) -> str:
    return MlflowClient().get_run(run_id).info.artifact_uri or ""


@functools.cache
def _of_model(model_id: str) -> str:
    return MlflowClient().get_logged_model(model_id).artifact_location or ""
