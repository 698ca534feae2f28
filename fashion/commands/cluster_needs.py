"""What a cluster needs before flows can run on it, judged by the addresses of this environment. Reaches no cluster."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fashion.storage.address import BUCKETS
from fashion.storage.servers import without_password

SECRET = "fashion"
"""Name of the secret, and of the service account, where Metaflow's settings name none. A branch adds its own name."""
ADDRESSES = {
    "MLFLOW_TRACKING_URI": "http(s) address of an MLflow server",
    "FASHION_STUDIES": "postgresql:// address of a database for tuning",
    "FASHION_CHECKPOINTS": "bucket for training checkpoints",
    "FASHION_REPORTS": "bucket for drift reports",
    "FASHION_IMAGES": "bucket with the pictures that were predicted",
    "FASHION_BENTOS": "bucket for bentos, which end with their pod otherwise",
}
"""Addresses that pods read, and what each must be. Without one, a pod writes to its own disk."""
LOGS = ("FASHION_LOG", "FASHION_FIRESTORE")
"""Either names the prediction log that machines share."""
OPTIONAL = (
    *("FASHION_DATA_BUCKET", "FASHION_ARTIFACTS", "FASHION_ALERTS", "FASHION_WEBHOOK", "FASHION_SMTP"),
    *("FASHION_PREDICT_KEY", "FASHION_SERVER_SECONDS", "FASHION_SIGNING_KEY", "FASHION_TRUSTED_KEYS"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_ENDPOINT_URL"),
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"),
    *("STORAGE_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"),
)
"""Variables that pods are given where this environment has them."""
EVENTS = ("WEBHOOK_URL", "EVENT", "EVENT_SOURCE", "SERVICE_ACCOUNT")
"""Metaflow's settings of Argo Events, without which no flow starts another: METAFLOW_ARGO_EVENTS_..."""
IMAGES = {"train": "FASHION_TRAIN_IMAGE"}
"""Flow -> variable with its image. All others need no torch, and take FASHION_FLOWS_IMAGE."""
FLOWS_IMAGE = "FASHION_FLOWS_IMAGE"
DATASTORES = ("gs", "s3", "azure")
THIS_MACHINE = re.compile(r"localhost|127\.[\d.]+|0\.0\.0\.0|\[?::1\]?")


@dataclass(frozen=True)
class Needs:
    """What has to exist in a cluster, and what is wrong with the addresses."""

    namespace: str
    secret: str
    secret_keys: tuple[str, ...]
    """Names of variables, whose values are in this environment."""
    service_account: str
    images: Mapping[str, str]
    """Flow -> image; empty where none is set."""
    events: Mapping[str, str]
    """Metaflow's settings of Argo Events."""
    problems: tuple[str, ...]
    """One sentence each, which names a variable and the remedy."""
    remarks: tuple[str, ...]
    """What works without, at a price."""


def find_needs(
    environment: Mapping[str, str], settings: Mapping[str, str], *, branch: str | None, flows: tuple[str, ...]
) -> Needs:
    """Find what flows need on a cluster.

    Args:
        environment: variables.
        settings: of Metaflow, as `flows/runtime/metaflow_settings.py` prints them.
        branch: of the project that is deployed; None for production.
        flows: names such as `train`.
    """
    own_name = SECRET if branch is None else f"{SECRET}-{branch.replace('_', '-')}"
    images = {flow: environment.get(IMAGES.get(flow, FLOWS_IMAGE), "") for flow in flows}
    known = (*ADDRESSES, *LOGS, *OPTIONAL)
    return Needs(
        namespace=settings["METAFLOW_KUBERNETES_NAMESPACE"] or "default",
        secret=settings["METAFLOW_KUBERNETES_SECRETS"] or own_name,
        secret_keys=tuple(name for name in known if environment.get(name)),
        service_account=settings["METAFLOW_KUBERNETES_SERVICE_ACCOUNT"] or SECRET,
        images=images,
        events={name: settings[f"METAFLOW_ARGO_EVENTS_{name}"] for name in EVENTS},
        problems=(*_address_problems(environment), *_other_problems(environment, settings, images)),
        remarks=tuple(_remarks(environment, settings)),
    )


def why_unreachable(address: str) -> str | None:
    """Say why a pod cannot share what an address names; None if it can."""
    parts = urlsplit(address)
    if not parts.scheme or parts.scheme == "file" or parts.scheme.startswith("sqlite"):
        return "is on the disk of one machine: each pod would have its own, which ends with it"
    if parts.scheme not in (*BUCKETS, "firestore") and THIS_MACHINE.fullmatch(parts.hostname or "localhost"):
        return "names the machine itself, which in a pod is the pod"
    return None


def override_problems(overrides: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Say which overrides of flows name what only one machine has.

    Args:
        overrides: flow -> overrides, such as `source=/exports`.
    """
    for flow, given in overrides.items():
        for override in given:
            key, _, value = override.partition("=")
            address = value.strip("'\"")
            if (flow, key, address) == ("drift", "source", "local"):
                yield f"{flow}:{override} reads the log of the pod itself, which is empty: leave it out"
            elif address.startswith(("/", "~", "./", "file:")):
                yield f"{flow}:{override} {why_unreachable(address)}: give the address of a bucket"


def _address_problems(environment: Mapping[str, str]) -> Iterator[str]:
    for name, kind in ADDRESSES.items():
        address = environment.get(name, "")
        if not address:
            yield f"{name} is not set: it must be the {kind}"
        elif reason := why_unreachable(address):
            yield f"{name}={without_password(address)} {reason}: it must be the {kind}"
    if not any(environment.get(name) for name in LOGS):
        yield "FASHION_LOG is not set: it must be the log that services share, firestore://... or postgresql://..."
    elif (log := environment.get("FASHION_LOG")) and (reason := why_unreachable(log)):
        yield f"FASHION_LOG={without_password(log)} {reason}: it must be firestore://... or postgresql://..."


def _other_problems(
    environment: Mapping[str, str], settings: Mapping[str, str], images: Mapping[str, str]
) -> Iterator[str]:
    datastore = settings["METAFLOW_DEFAULT_DATASTORE"]
    root = f"METAFLOW_DATASTORE_SYSROOT_{datastore.upper()}"
    if datastore not in DATASTORES:
        yield f"METAFLOW_DEFAULT_DATASTORE={datastore} is on one machine: it must be one of {', '.join(DATASTORES)}"
    elif not settings[root]:
        yield f"{root} is not set: it must be the bucket where Metaflow stores artifacts and code"
    for variable in sorted({IMAGES.get(flow, FLOWS_IMAGE) for flow, image in images.items() if not image}):
        yield f"{variable} is not set: it must be the image that configs/deploy/ describes, as registry/name:tag"
    for name in EVENTS:
        if not settings[f"METAFLOW_ARGO_EVENTS_{name}"]:
            yield f"METAFLOW_ARGO_EVENTS_{name} is not set: drift starts no training, a training no deployment"
    url = settings["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"]
    if url and (reason := why_unreachable(url)):
        yield f"METAFLOW_ARGO_EVENTS_WEBHOOK_URL={url} {reason}: it must be the webhook of an Argo event source"
    for name in ("STORAGE_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"):
        if environment.get(name):
            yield f"{name} is set: pods would write to an emulator"


def _remarks(environment: Mapping[str, str], settings: Mapping[str, str]) -> Iterator[str]:
    if not settings["METAFLOW_SERVICE_URL"]:
        yield "METAFLOW_SERVICE_URL is not set: runs work, but Metaflow's client and UI do not list them"
    if not environment.get("FASHION_DATA_BUCKET"):
        yield "FASHION_DATA_BUCKET is not set: each pod downloads the data set from its public address"
    if environment.get("GOOGLE_APPLICATION_CREDENTIALS"):
        yield "GOOGLE_APPLICATION_CREDENTIALS names a file here: bind the service account to a Google one instead"
