"""The service on Kubernetes: valid for Kubernetes' own schemas, hardened, and consistent with itself and the code."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.manifests import DEPLOY, load, project_variables, variables_of_the_code

from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig

FOLDER = DEPLOY / "kubernetes"
FILES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
VERSIONS = ("1.30", "1.34", "1.37")
"""The oldest with a `preStop` that sleeps by itself, and later ones."""
LABELS = {"app": "fashion-classifier"}


@pytest.fixture(scope="module")
def pod() -> Any:
    return load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod: Any) -> Any:
    (only,) = pod["containers"]
    return only


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_it_is_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(load(f"kubernetes/{name}"), version, strict=True)


def test_an_unknown_field_is_not_valid() -> None:
    damaged = load("kubernetes/deployment.yaml")
    damaged["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(damaged, VERSIONS[0], strict=True)


def test_kustomization_applies_all_but_the_template_of_the_secret() -> None:
    content = load("kubernetes/kustomization.yaml")
    assert sorted([*content["resources"], "secret.yaml"]) == FILES
    (image,) = content["images"]
    assert image["name"] == load("kubernetes/deployment.yaml")["spec"]["template"]["spec"]["containers"][0]["image"]


def test_the_secret_has_no_values() -> None:
    assert set(load("kubernetes/secret.yaml")["stringData"].values()) == {""}


def test_it_runs_without_privileges(pod: Any, container: Any) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_what_the_image_writes_to_is_a_volume(pod: Any, container: Any) -> None:
    template = Path(DEPLOY.parents[1], "bentos/classifier/Dockerfile.template").read_text()
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounts) == {*re.findall(r"^VOLUME (\S+)", template, re.MULTILINE), "/tmp"}
    assert set(mounts.values()) == {each["name"] for each in pod["volumes"]}


def test_a_pod_has_the_time_to_finish_and_ship_its_log(pod: Any, container: Any) -> None:
    serve = load_as(ServeConfig, compose(root="serve")).serve
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + 3 * serve.log.drain_seconds
    assert needed < pod["terminationGracePeriodSeconds"]


def test_a_worker_that_takes_all_its_memory_fits_into_the_pod(container: Any) -> None:
    serve = load_as(ServeConfig, compose(root="serve")).serve
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    assert serve.workers * serve.limits.memory_bytes < int(limit.removesuffix("Mi")) * 2**20


def test_everything_selects_the_pods_and_nothing_else() -> None:
    deployment = load("kubernetes/deployment.yaml")
    assert deployment["spec"]["template"]["metadata"]["labels"] == LABELS
    assert deployment["spec"]["selector"]["matchLabels"] == LABELS
    assert load("kubernetes/service.yaml")["spec"]["selector"] == LABELS
    assert load("kubernetes/disruption-budget.yaml")["spec"]["selector"]["matchLabels"] == LABELS
    assert load("kubernetes/network-policy.yaml")["spec"]["podSelector"]["matchLabels"] == LABELS
    target = load("kubernetes/autoscaler.yaml")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_the_policy_lets_requests_in_at_the_port_that_is_served(container: Any) -> None:
    (ingress,) = load("kubernetes/network-policy.yaml")["spec"]["ingress"]
    assert [each["port"] for each in ingress["ports"]] == [each["containerPort"] for each in container["ports"]]


def test_a_node_can_be_drained_at_the_least_number_of_pods() -> None:
    least = load("kubernetes/autoscaler.yaml")["spec"]["minReplicas"]
    assert load("kubernetes/disruption-budget.yaml")["spec"]["maxUnavailable"] < least


def test_the_code_reads_every_variable(container: Any) -> None:
    secret, addresses = load("kubernetes/secret.yaml"), load("kubernetes/config-map.yaml")
    assert container["envFrom"] == [
        {"configMapRef": {"name": addresses["metadata"]["name"]}},
        {"secretRef": {"name": secret["metadata"]["name"]}},
    ]
    names = project_variables([*secret["stringData"], *addresses["data"]])
    assert len(names) == len(secret["stringData"]) + len(addresses["data"])
    assert names <= variables_of_the_code()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_one_resource(name: str) -> None:
    assert len(list(yaml.safe_load_all((FOLDER / name).read_text()))) == 1
