"""Compares the files of `configs/deploy/monitoring` with a project, and makes or changes what differs.

Never deletes: what no file describes any more is listed. Knows the two APIs' collections, not how requests are sent.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fashion.deployment.google_api import ResourceMissing, Session
from fashion.deployment.resource_files import Kind, ResourceFile, WrongFile

LABEL = "fashion_file"
"""User label of channels, SLOs and alert policies: which file describes them."""
MONITORING, BUDGETS, PROJECTS = "monitoring", "billingbudgets", "cloudresourcemanager"


@dataclass(frozen=True)
class Project:
    """Where, and for which service."""

    project: str
    """Id of the Google Cloud project."""
    region: str
    """Of the Cloud Run service."""
    service: str
    """Name of the Cloud Run service."""
    email: str
    """Address that alerts are sent to."""
    billing_account: str | None = None
    """Whose budget is set; None leaves the budget out."""
    budget: int | None = None
    """Of a month, in whole units of the currency."""
    currency: str = "USD"
    """Of the billing account, as ISO 4217 writes it."""

    @property
    def service_id(self) -> str:
        """Id of the service in Cloud Monitoring."""
        return f"{self.service}-{self.region}"

    def values(self) -> dict[str, str]:
        """The values of placeholders."""
        return {
            "project": self.project,
            "region": self.region,
            "service": self.service,
            "email": self.email,
            "amount": str(self.budget),
            "currency": self.currency,
        }


@dataclass(frozen=True)
class Change:
    """What a file asks for, beside what there is."""

    action: Literal["create", "update", "keep", "skip", "unknown"]
    """`unknown` is a resource that bears our label and that no file describes any more: it is left alone."""
    kind: str
    name: str
    """Of the file; of the resource where the action is `unknown`."""
    title: str
    """The resource's display name, or why it is skipped."""
    differs: tuple[str, ...] = ()
    """Dotted paths of what an update changes."""


def synchronise(
    files: Sequence[ResourceFile], project: Project, session: Session, *, apply: bool = False
) -> Iterator[Change]:
    """Yield what differs, and mend it before it is yielded if `apply` is set.

    Args:
        files: in the order of their kinds.
        project: where to.
        session: sends the requests.
        apply: make and change resources; without it, only reads.

    Raises:
        fashion.deployment.google_api.ApiUnavailable: a request failed; what was made before stays.
        fashion.deployment.resource_files.WrongFile: a file cannot be filled in.
    """
    values = project.values()
    collections: dict[Kind, _Collection] = {}
    for file in files:
        if file.name in values:
            raise WrongFile(f"{file.name}.yaml has the name of a value: call it {file.kind}_something.yaml")
        if file.kind == "budget":
            if project.billing_account is None or project.budget is None:
                yield Change("skip", file.kind, file.name, "give --billing-account and --budget to set it")
                continue
            values.setdefault("project_number", _project_number(session, project.project))
        if file.kind not in collections:
            collections[file.kind] = _Collection(file.kind, project, session)
        collection = collections[file.kind]
        body = collection.own(file, file.fill(values))
        existing = collection.find(file, body)
        differs = tuple(differences(body, existing)) if existing is not None else ()
        action: Literal["create", "update", "keep"] = "create" if existing is None else "update" if differs else "keep"
        if apply and action != "keep":
            existing = collection.write(file, body, existing)
        values[file.name] = existing["name"] if existing is not None else f"({file.name}, once it is made)"
        yield Change(action, file.kind, file.name, body["displayName"], differs)
    for collection in collections.values():
        yield from collection.unknown({file.name for file in files})


def differences(wanted: Any, existing: Any, path: str = "") -> Iterator[str]:
    """Yield the dotted paths at which an existing resource is not what is wanted.

    What only the existing one has, such as names and times that the API adds, is no difference.

    Args:
        wanted: the resource of a file, or a part of it.
        existing: the same part of the resource that the API returned.
        path: of the part.
    """
    if isinstance(wanted, Mapping) and isinstance(existing, Mapping):
        for key, value in wanted.items():
            yield from differences(value, existing.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(existing, list) and len(wanted) == len(existing):
        for index, (mine, theirs) in enumerate(zip(wanted, existing, strict=True)):
            yield from differences(mine, theirs, f"{path}[{index}]")
    elif not _same(wanted, existing):
        yield path


@dataclass(frozen=True)
class _Api:
    """How the resources of a kind are reached."""

    api: str
    version: str
    key: str
    """Last part of the collection's path, and the key under which its answers list it."""
    id_param: str | None = None
    """Name of the query parameter with an id that the caller chooses; None where the API makes one."""
    labels: bool = True


_APIS: dict[Kind, _Api] = {
    "channel": _Api(MONITORING, "v3", "notificationChannels"),
    "service": _Api(MONITORING, "v3", "services", id_param="serviceId"),
    "slo": _Api(MONITORING, "v3", "serviceLevelObjectives", id_param="serviceLevelObjectiveId"),
    "alert": _Api(MONITORING, "v3", "alertPolicies"),
    "budget": _Api(BUDGETS, "v1", "budgets", labels=False),
}


class _Collection:
    """The resources of a kind that a project has."""

    def __init__(self, kind: Kind, project: Project, session: Session) -> None:
        self.kind, self._project, self._session, self._api = kind, project, session, _APIS[kind]
        parent = {
            "slo": f"projects/{project.project}/services/{project.service_id}",
            "budget": f"billingAccounts/{project.billing_account}",
        }.get(kind, f"projects/{project.project}")
        self._path = f"{self._api.version}/{parent}/{self._api.key}"
        self._existing = list(self._read())

    def own(self, file: ResourceFile, body: dict[str, Any]) -> dict[str, Any]:
        """Add the label by which a later call finds the resource, where its kind has labels."""
        if not self._api.labels:
            return body
        return {**body, "userLabels": {**body.get("userLabels", {}), LABEL: file.name}}

    def find(self, file: ResourceFile, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the resource that a file describes, None where there is none yet."""
        return next((each for each in self._existing if self._describes(file, body, each)), None)

    def write(self, file: ResourceFile, body: Mapping[str, Any], existing: Mapping[str, Any] | None) -> dict[str, Any]:
        """Make the resource, or change it, and return it as the API has it."""
        if existing is not None:
            path = f"{self._api.version}/{existing['name']}"
            params = {"updateMask": ",".join(body)}
            return self._session.call("PATCH", self._api.api, path, body=body, params=params)
        params = {} if self._api.id_param is None else {self._api.id_param: self._id(file)}
        return self._session.call("POST", self._api.api, self._path, body=body, params=params)

    def unknown(self, names: set[str]) -> Iterator[Change]:
        """Yield resources with our label that none of the files describes."""
        for each in self._existing:
            if (label := _label(each)) and label not in names:
                yield Change("unknown", self.kind, each["name"], each.get("displayName", ""))

    def _describes(self, file: ResourceFile, body: Mapping[str, Any], resource: Mapping[str, Any]) -> bool:
        if self._api.id_param is not None:
            return str(resource["name"]).endswith(f"/{self._id(file)}")
        if self._api.labels:
            return _label(resource) == file.name
        return bool(resource.get("displayName") == body["displayName"])

    def _id(self, file: ResourceFile) -> str:
        return self._project.service_id if self.kind == "service" else file.name.replace("_", "-")

    def _read(self) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(ResourceMissing):  # of a service that is not made yet, there is no collection of SLOs
            yield from self._session.list(self._api.api, self._path, self._api.key)


def _project_number(session: Session, project: str) -> str:
    name: str = session.call("GET", PROJECTS, f"v3/projects/{project}")["name"]
    return name.rpartition("/")[2]


def _label(resource: Mapping[str, Any]) -> str:
    return str(resource.get("userLabels", {}).get(LABEL, ""))


def _same(wanted: Any, existing: Any) -> bool:
    if wanted == existing:
        return True
    if isinstance(wanted, str) and isinstance(existing, str) and _is_duration(wanted) and _is_duration(existing):
        return float(wanted[:-1]) == float(existing[:-1])  # 0.070s comes back as 0.07s
    # What has its type's default is left out of an answer.
    return existing is None and wanted in ({}, [], "", 0, False, "0s")


def _is_duration(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?s", text) is not None
