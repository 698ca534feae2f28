"""Write what is applied to a cluster: each flow's resources as Metaflow compiles them, accounts and their roles."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fashion.commands.cluster_needs import Needs
from fashion.commands.errors import CommandError
from fashion.home import REPOSITORY

FLOWS = ("train", "deploy", "drift", "predict")
EXAMPLES = "examples"
"""Folder for what is filled in before it is applied: `kubectl apply --filename FOLDER` does not descend into it."""
POD_RULES = (
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]},
    {
        "apiGroups": ["jobset.x-k8s.io"],  # steps with several nodes
        "resources": ["jobsets"],
        "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    },
)
SENSOR_RULES = (
    {"apiGroups": ["argoproj.io"], "resources": ["workflows"], "verbs": ["create", "get", "list", "watch"]},
    {"apiGroups": ["argoproj.io"], "resources": ["workflowtemplates"], "verbs": ["get", "list", "watch"]},
)


def metaflow_settings() -> dict[str, str]:
    """Return Metaflow's settings, which its configuration file may hold.

    Raises:
        CommandError: Metaflow does not start.
    """
    printed = _python("runtime/metaflow_settings.py", [], os.environ)
    settings: dict[str, str] = json.loads(printed)
    return settings


def write(needs: Needs, folder: Path, *, branch: Sequence[str], overrides: Mapping[str, Sequence[str]]) -> list[Path]:
    """Write the manifests, and return their paths.

    Args:
        needs: names of the image, the secret and the accounts.
        folder: for them.
        branch: Metaflow's option, such as `--production`.
        overrides: flow -> configuration overrides that it is compiled with.

    Raises:
        CommandError: a flow does not compile.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for flow in FLOWS:
        environment = os.environ | {
            "FASHION_MANIFESTS": str(folder),
            "METAFLOW_KUBERNETES_CONTAINER_IMAGE": needs.images[flow],
            "METAFLOW_KUBERNETES_SECRETS": needs.secret,
            "METAFLOW_KUBERNETES_SERVICE_ACCOUNT": needs.service_account,
            # Argo 4 knows no `schedule`, and Argo 3.6 and later know `schedules`.
            "METAFLOW_ARGO_WORKFLOWS_USE_SCHEDULES": "true",
        }
        arguments = [*overrides.get(flow, ()), *branch, "--with", "kubernetes", "argo-workflows", "create"]
        _python(f"{flow}_flow.py", arguments, environment)
    _write(folder / "serviceaccount-pods.yaml", *account(needs.service_account, needs.namespace, POD_RULES))
    sensors = needs.events["SERVICE_ACCOUNT"]
    if sensors:
        _write(folder / "serviceaccount-sensors.yaml", *account(sensors, needs.namespace, SENSOR_RULES))
    (folder / EXAMPLES).mkdir(exist_ok=True)
    _write(folder / EXAMPLES / "secret.yaml", secret(needs, {}))
    return sorted(folder.glob("*.yaml"))


def secret(needs: Needs, values: Mapping[str, str]) -> dict[str, Any]:
    """Return a Secret with the keys that pods need.

    Args:
        needs: its name and its keys.
        values: of the keys; one without a value is empty.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": needs.secret, "namespace": needs.namespace},
        "type": "Opaque",
        "stringData": {key: values.get(key, "") for key in needs.secret_keys},
    }


def account(name: str, namespace: str, rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a service account, and a role with these rules that is bound to it."""
    group, metadata = "rbac.authorization.k8s.io", {"name": name, "namespace": namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [dict(rule) for rule in rules]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    ]


def _write(path: Path, *resources: Mapping[str, Any]) -> None:
    import yaml

    # Copies, for YAML would write a mapping that is used twice as a reference.
    plain = json.loads(json.dumps(resources))
    path.write_text(yaml.safe_dump_all(plain, sort_keys=False))


def _python(script: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a script of flows/, and return what it printed."""
    command = [sys.executable, str(REPOSITORY / "flows" / script), *arguments]
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True)
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise CommandError(f"flows/{script} failed: {' '.join(lines[-2:])}")
    return done.stdout
