"""The harness itself: a workflow of shell commands in pods, whose retries, time limits and isolation can be seen."""

from pathlib import Path
from typing import Any

import pytest
from support.argo.expressions import UnknownExpression, may_retry
from support.argo.pods import LOST, absent_from, require_namespaces
from support.argo.workflows import Cluster, Workflow

from fashion.home import REPOSITORY

RETRY = {"limit": 2, "retryPolicy": "Always", "expression": "asInt(lastRetry.exitCode) != 202"}


def run(folder: Path, command: str, *, absent: frozenset[str] = frozenset(), **template: Any) -> Workflow:
    """A workflow of one step."""
    require_namespaces()
    container = {"command": ["bash", "-c", command], "image": "any", "env": [{"name": "GIVEN", "value": "{{retries}}"}]}
    step = {"name": "step", "container": container | {"envFrom": [{"secretRef": {"name": "keys"}}]}, **template}
    outputs = {"parameters": [{"name": "said", "valueFrom": {"path": "/mnt/out/said"}}]}
    graph = {"name": "flow", "dag": {"tasks": [{"name": "step", "template": "step"}]}}
    spec = {"entrypoint": "flow", "templates": [step | {"outputs": outputs}, graph]}
    cluster = Cluster(folder, secrets={"keys": {"SECRET": "value"}}, absent=lambda image: absent)
    return Workflow({"spec": spec}, cluster, "workflow", {}).run()


@pytest.mark.parametrize(("code", "attempts"), [(1, 3), (202, 1), (0, 1)])
def test_a_pod_is_run_again_unless_its_exit_code_forbids_it(code: int, attempts: int, tmp_path: Path) -> None:
    done = run(tmp_path, f"exit {code}", retryStrategy=RETRY)
    assert [pod.exit_code for pod in done.attempts("step")] == [code] * attempts
    assert done.status == ("Failed" if code else "Succeeded")


def test_without_a_strategy_it_is_not_run_again(tmp_path: Path) -> None:
    assert len(run(tmp_path, "exit 1").attempts("step")) == 1


@pytest.mark.fault("pod that hangs")
def test_a_pod_beyond_its_time_is_ended_and_run_again(tmp_path: Path) -> None:
    done = run(tmp_path, '[ "$GIVEN" = 1 ] || sleep 60', activeDeadlineSeconds=2, retryStrategy=RETRY)
    assert [pod.exit_code for pod in done.attempts("step")] == [LOST, 0]


def test_a_pod_sees_its_manifest_and_nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THIS_MACHINE", "1")
    (tmp_path / "seen").touch()
    done = run(tmp_path, f"env; ls -a . /tmp; ls {REPOSITORY} {tmp_path}; echo 1 > /mnt/out/said")
    (pod,) = done.attempts("step")
    assert "SECRET=value" in pod.log
    assert "GIVEN=0" in pod.log
    assert "OF_THIS_MACHINE" not in pod.log
    assert "fashion" not in pod.log.replace(str(REPOSITORY), "").replace(str(tmp_path), "")
    assert pod.output("/mnt/out/said") == "1\n"


def test_an_image_of_the_smaller_lock_has_no_torch(tmp_path: Path) -> None:
    absent = absent_from("requirements-flows.lock")
    assert {"torch", "timm", "pytest"} <= absent
    assert not {"mlflow", "metaflow", "bentoml", "evidently", "numpy"} & absent
    (pod,) = run(tmp_path, "python -c 'import numpy; import torch'", absent=absent).attempts("step")
    assert "No module named 'torch'" in pod.log


def test_what_it_does_not_understand_ends_it() -> None:
    with pytest.raises(UnknownExpression):
        may_retry(RETRY | {"expression": "true == lastRetry.status"}, attempts=1, exit_code=1)
