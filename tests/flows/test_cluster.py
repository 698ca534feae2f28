"""Flows as a Kubernetes cluster would be given them: Argo's workflow templates, with code in an emulated bucket."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml
from support import google_credentials
from support.bucket import serve as serve_bucket
from support.machine import FLOWS, Machine


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Workflow templates by flow."""
    folder = tmp_path_factory.mktemp("cluster")
    machine = Machine(folder / "var")
    with serve_bucket("metaflow") as bucket, google_credentials.serve(folder) as key:
        environment = machine.environment | {
            "STORAGE_EMULATOR_HOST": bucket,
            "GOOGLE_APPLICATION_CREDENTIALS": str(key),
            "METAFLOW_DEFAULT_DATASTORE": "gs",
            "METAFLOW_DATASTORE_SYSROOT_GS": "gs://metaflow/flows",
            "METAFLOW_SERVICE_URL": "http://127.0.0.1:1",  # asked by tasks only
            "METAFLOW_KUBERNETES_CONTAINER_IMAGE": "registry.example/fashion:1",
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": "http://argo-events:12000/metaflow-event",
            "METAFLOW_ARGO_EVENTS_EVENT": "metaflow-event",
            "METAFLOW_ARGO_EVENTS_EVENT_BUS": "default",
            "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "argo-events-webhook",
            "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow",
        }
        return {name: compiled(name, environment) for name in ("train", "deploy", "drift", "predict")}


def compiled(name: str, environment: dict[str, str]) -> dict[str, Any]:
    words = {"train": ["architecture=resnet", "resources.gpu=1"], "drift": ["cron='30 4 * * *'"]}.get(name, [])
    command = [sys.executable, str(FLOWS / f"{name}_flow.py"), *words, "--datastore", "gs", "--with", "kubernetes"]
    done = subprocess.run(
        [*command, "argo-workflows", "create", "--only-json"], env=environment, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    template: dict[str, Any] = json.loads(done.stdout)
    return template


def tasks(template: dict[str, Any]) -> dict[str, Any]:
    """Containers by step, those of a parallel step's JobSet too."""
    found = template["spec"]["templates"]
    containers = {each["name"]: each["container"] for each in found if each.get("container")}
    for each in found:
        if each.get("resource"):
            (pod,) = (
                job["template"]["spec"]["template"]["spec"]
                for job in job_set(each)["spec"]["replicatedJobs"]
                if job["name"] == "control"
            )
            containers[each["name"].replace("-", "_")] = pod["containers"][0]
    return containers


def job_set(template: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a parallel step; Argo fills in the number of its workers."""
    text = re.sub(r'"?\{\{=asInt\(inputs.parameters.workerCount\)\}\}"?', "1", template["resource"]["manifest"])
    manifest: dict[str, Any] = yaml.safe_load(text)
    assert manifest["kind"] == "JobSet"
    return manifest


@pytest.mark.parametrize("name", ["train", "deploy", "drift", "predict"])
def test_every_step_is_a_task_in_the_configured_image(templates: dict[str, Any], name: str) -> None:
    source = (FLOWS / f"{name}_flow.py").read_text()
    steps = set(re.findall(r"@step\n    def (\w+)", source))
    assert len(steps) >= 3
    assert steps <= set(tasks(templates[name]))
    assert {tasks(templates[name])[step]["image"] for step in steps} == {"registry.example/fashion:1"}


def test_training_asks_for_what_was_configured(templates: dict[str, Any]) -> None:
    for step in ("tune", "train"):
        resources = tasks(templates["train"])[step]["resources"]
        assert float(resources["requests"]["cpu"]) == 2
        assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert tasks(templates["train"])["train_node"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in (tasks(templates["train"])["register"]["resources"]["limits"] or {})


def test_flows_start_one_another(templates: dict[str, Any]) -> None:
    notes = {name: template["metadata"]["annotations"] for name, template in templates.items()}
    assert json.loads(notes["train"]["metaflow/triggers"]) == [{"name": "fashion-retrain", "type": "event"}]
    assert json.loads(notes["deploy"]["metaflow/triggers"]) == [{"name": "metaflow.TrainFlow.end", "type": "run"}]
    assert json.loads(notes["drift"]["metaflow/cron"])["schedule"] == "30 4 * * *"
    assert "metaflow/triggers" not in notes["predict"]


def test_paths_that_depend_on_what_was_found_are_kept(templates: dict[str, Any]) -> None:
    (graph,) = (each["dag"] for each in templates["drift"]["spec"]["templates"] if each["name"] == "DriftFlow")
    waits = {task["name"]: task.get("depends") for task in graph["tasks"]}
    assert waits["end"] == "act.Succeeded || retrain.Succeeded"
