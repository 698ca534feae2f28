"""Changes to how Metaflow compiles a flow for Argo: which failures are retried, and where its resources are written.

Metaflow 2.19 gives each template that may be retried `retryPolicy: Always`, though its own runtime ends a flow at a
task that exits with METAFLOW_EXIT_DISALLOW_RETRY. It can print a template, but not the sensor and the cron workflow.
"""

import json
from pathlib import Path
from typing import Any

from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY

RETRY_EXPRESSION = f"asInt(lastRetry.exitCode) != {METAFLOW_EXIT_DISALLOW_RETRY}"
"""Argo retries while this holds. `lastRetry.exitCode` is -1 where the pod has none, as after a lost node."""


def end_at_disallowed_retries() -> None:
    """Let Argo end a step that exits with METAFLOW_EXIT_DISALLOW_RETRY, whatever its `@retry` says."""
    from metaflow.plugins.argo import argo_workflows

    original = argo_workflows.Template.retry_strategy

    def retry_strategy(template: Any, times: int, minutes_between_retries: int) -> Any:
        template = original(template, times, minutes_between_retries)
        if "retryStrategy" in template.payload:
            template.payload["retryStrategy"]["expression"] = RETRY_EXPRESSION
        return template

    argo_workflows.Template.retry_strategy = retry_strategy


def write_instead_of_sending(folder: Path) -> None:
    """Let `argo-workflows create` write what it would send to a cluster.

    Args:
        folder: a file for each resource is written there. The production token of a template that is there is kept.
    """
    from metaflow.plugins.argo import argo_client

    argo_client.KubernetesClient = lambda: _Client(folder)


class _Client:
    """As much of Metaflow's Kubernetes client as its Argo client uses."""

    def __init__(self, folder: Path) -> None:
        from kubernetes.client import rest

        self.folder, self.rest = folder, rest

    def get(self) -> "_Client":
        return self

    def CustomObjectsApi(self) -> "_Folder":  # noqa: N802  # named by Kubernetes
        return _Folder(self.folder)


class _Folder:
    """A folder in place of a cluster's API for custom resources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get_namespaced_custom_object(self, *, plural: str, name: str, **_: str) -> dict[str, Any]:
        import yaml

        path = self._path(plural, name)
        if not path.exists():
            from kubernetes.client.rest import ApiException

            raise ApiException(status=404)
        found: dict[str, Any] = yaml.safe_load(path.read_text())
        found["metadata"]["resourceVersion"] = ""
        return found

    def create_namespaced_custom_object(self, *, namespace: str, plural: str, body: Any, **_: str) -> None:
        import yaml

        resource = without_nulls(json.loads(json.dumps(body)))
        resource["metadata"] |= {"namespace": namespace}
        resource["metadata"].pop("resourceVersion", None)
        if resource["kind"] == "Sensor":
            resource["spec"]["template"]["container"].pop("name")  # Argo Events' schema has no such field
        self.folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(resource, sort_keys=False, width=10**6)
        self._path(plural, resource["metadata"]["name"]).write_text(text)

    def replace_namespaced_custom_object(self, *, name: str, **create: Any) -> None:
        self.create_namespaced_custom_object(**create)

    def delete_namespaced_custom_object(self, *, plural: str, name: str, **_: str) -> None:
        self._path(plural, name).unlink(missing_ok=True)

    def _path(self, plural: str, name: str) -> Path:
        return self.folder / f"{plural.removesuffix('s')}-{name}.yaml"


def without_nulls(value: Any) -> Any:
    """The same without keys whose value is null, which Argo's schema does not allow."""
    if isinstance(value, dict):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value
