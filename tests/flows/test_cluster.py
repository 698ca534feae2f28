"""Flows as a Kubernetes cluster would be given them: manifests of two branches, with code in an emulated bucket."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support import google_credentials
from support.argo import events, schema
from support.bucket import serve as serve_bucket
from support.machine import FLOWS, Machine

ARGO = {"WorkflowTemplate", "CronWorkflow", "Sensor"}
NAMES = ("train", "deploy", "drift", "predict")
ADDRESSES = {
    "MLFLOW_TRACKING_URI": "https://mlflow.example",
    "FASHION_STUDIES": "postgresql+psycopg://fashion:secret@db.example/studies",
    "FASHION_CHECKPOINTS": "gs://team/checkpoints",
    "FASHION_REPORTS": "gs://team/reports",
    "FASHION_IMAGES": "gs://team/images",
    "FASHION_BENTOS": "gs://team/bentos",
    "FASHION_LOG": "firestore://team",
    "FASHION_TRAIN_IMAGE": "registry.example/fashion-train:1",
    "FASHION_FLOWS_IMAGE": "registry.example/fashion-flows:1",
    "METAFLOW_DEFAULT_DATASTORE": "gs",
    "METAFLOW_DATASTORE_SYSROOT_GS": "gs://metaflow/flows",
}
EVENTS = {
    "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": "http://argo-events:12000/metaflow-event",
    "METAFLOW_ARGO_EVENTS_EVENT": "metaflow-event",
    "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "argo-events-webhook",
    "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow",
}


class Written:
    """The manifests of a branch, by file name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resources = [each for path in sorted(folder.glob("*.yaml")) for each in yaml.safe_load_all(path.open())]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [each for each in self.resources if each["kind"] == kind]

    def template(self, flow: str) -> dict[str, Any]:
        (found,) = (
            each for each in self.of_kind("WorkflowTemplate") if each["metadata"]["name"].endswith(f"{flow}flow")
        )
        return found

    def sensor(self, flow: str) -> dict[str, Any]:
        (found,) = (each for each in self.of_kind("Sensor") if each["metadata"]["name"].endswith(f"{flow}flow"))
        return found

    def steps(self, flow: str) -> dict[str, dict[str, Any]]:
        """Templates of pods, by step; without the one that looks for an error's message at the end."""
        found = self.template(flow)["spec"]["templates"]
        return {each["name"]: each for each in found if each.get("container") and "hook" not in each["name"]}

    def variables(self, flow: str, step: str) -> dict[str, str]:
        return {each["name"]: each.get("value", "") for each in self.steps(flow)[step]["container"]["env"]}


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    """Manifests of production and of two people's branches, in one cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    machine = Machine(folder / "var")
    (folder / "metaflow").mkdir()
    (folder / "metaflow" / "config.json").write_text(json.dumps(EVENTS))
    with serve_bucket("metaflow") as bucket, google_credentials.serve(folder) as key:
        environment = machine.environment | ADDRESSES
        environment |= {"STORAGE_EMULATOR_HOST": bucket, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
        environment |= {"METAFLOW_HOME": str(folder / "metaflow")}
        words = ["--unchecked", "train:architecture=resnet", "train:resources.gpu=1", "drift:cron='30 4 * * *'"]
        branches = {"production": ["--production"], "ada": ["--branch", "ada"]}
        for name, option in branches.items():
            told = fashion(environment, "manifests", *option, *words, "--folder", str(folder / name))
            assert told.returncode == 0, told.stderr
    return {name: Written(folder / name) for name in branches}


@pytest.mark.parametrize("branch", ["production", "ada"])
def test_manifests_are_valid(templates: dict[str, Written], branch: str) -> None:
    resources = templates[branch].resources
    kinds = [each["kind"] for each in resources]
    assert [kinds.count(kind) for kind in ("WorkflowTemplate", "CronWorkflow", "Sensor")] == [4, 1, 2]
    assert [kinds.count(kind) for kind in ("ServiceAccount", "Role", "RoleBinding")] == [2, 2, 2]
    for resource in resources:
        if resource["kind"] in ARGO:
            assert schema.errors(resource) == [], resource["metadata"]["name"]
        else:
            kubernetes_validate.validate(resource, "1.35", strict=True)


def test_the_schema_refuses_what_argo_would(templates: dict[str, Written]) -> None:
    damaged = json.loads(json.dumps(templates["production"].template("train")))
    damaged["spec"]["templates"][0]["retryStrategie"] = {}
    assert len(schema.errors(damaged)) == 1


@pytest.mark.parametrize("name", NAMES)
def test_every_step_is_a_task_in_its_flows_image(templates: dict[str, Written], name: str) -> None:
    source = (FLOWS / f"{name}_flow.py").read_text()
    steps = set(re.findall(r"@step\n    def (\w+)", source))
    assert len(steps) >= 3
    # A step with several nodes is a JobSet, whose pods are in the text of its manifest.
    found = {each["name"]: json.dumps(each) for each in templates["production"].template(name)["spec"]["templates"]}
    image = "registry.example/fashion-train:1" if name == "train" else "registry.example/fashion-flows:1"
    assert [step for step in steps if image not in found[step.replace("_", "-")]] == []


def test_nodes_of_one_training_have_the_time_limit_too(templates: dict[str, Written]) -> None:
    found = [
        each["resource"]
        for each in templates["production"].template("train")["spec"]["templates"]
        if "resource" in each
    ]
    (job_set,) = (yaml.safe_load(re.sub(r"{{=?(.*?)}}", "1", each["manifest"])) for each in found)
    jobs = job_set["spec"]["replicatedJobs"]
    assert {each["name"] for each in jobs} == {"control", "worker"}
    assert {each["template"]["spec"]["template"]["spec"]["activeDeadlineSeconds"] for each in jobs} == {60 * 720}


@pytest.mark.parametrize("name", NAMES)
def test_every_pod_has_the_secret_the_account_the_commit_and_a_time_limit(
    templates: dict[str, Written], name: str
) -> None:
    minutes = {"train": 720, "deploy": 60, "drift": 240, "predict": 120}[name]
    for step, template in templates["production"].steps(name).items():
        assert template["container"]["envFrom"] == [{"secretRef": {"name": "fashion"}}]
        assert template["serviceAccountName"] == "fashion"
        assert template["activeDeadlineSeconds"] == 60 * minutes
        assert re.match(r"[0-9a-f]{40}", templates["production"].variables(name, step)["FASHION_GIT_COMMIT"])
        if strategy := template.get("retryStrategy"):
            assert strategy["expression"] == "asInt(lastRetry.exitCode) != 202"
    assert "retryStrategy" in templates["production"].steps(name)["start" if name != "predict" else "predict"]


def test_training_asks_for_what_was_configured(templates: dict[str, Written]) -> None:
    steps = templates["production"].steps("train")
    for step in ("tune", "train"):
        resources = steps[step]["container"]["resources"]
        assert float(resources["requests"]["cpu"]) == 2
        assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in steps["register"]["container"]["resources"].get("limits", {})


def test_flows_start_one_another_though_only_metaflows_file_names_argo_events(templates: dict[str, Written]) -> None:
    production = templates["production"]
    notes = {name: production.template(name)["metadata"]["annotations"] for name in NAMES}
    assert json.loads(notes["train"]["metaflow/triggers"]) == [{"name": "fashion-retrain", "type": "event"}]
    assert json.loads(notes["deploy"]["metaflow/triggers"]) == [{"name": "fashion-deploy", "type": "event"}]
    assert "metaflow/triggers" not in notes["predict"]
    (cron,) = production.of_kind("CronWorkflow")
    assert cron["spec"]["schedules"] == ["30 4 * * *"]
    assert production.variables("drift", "retrain")["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"] == (
        "http://argo-events:12000/metaflow-event"
    )


def test_an_event_fills_in_the_parameters_that_it_names_and_leaves_defaults(templates: dict[str, Written]) -> None:
    sensors = templates["production"].of_kind("Sensor")
    payload = {"name": "fashion-retrain", "overrides": "tuning=off 'data.name=two words'", "deploy": False}
    ((name, parameters),) = events.started_by({"name": "x", "payload": payload}, sensors)
    assert name == "fashion.prod.trainflow"
    assert json.loads(parameters["overrides"]) == payload["overrides"]
    assert json.loads(parameters["deploy"]) is False
    assert json.loads(parameters["deploy_overrides"]) == ""
    assert events.started_by({"name": "x", "payload": {"name": "another"}}, sensors) == []


class TestBranches:
    def test_templates_have_names_of_their_own(self, templates: dict[str, Written]) -> None:
        names = {
            branch: {each["metadata"]["name"] for each in written.resources} for branch, written in templates.items()
        }
        assert "fashion.prod.trainflow" in names["production"]
        assert "fashion.test.ada.trainflow" in names["ada"]
        assert names["production"] & names["ada"] == {"fashion", "operate-workflow"}  # service accounts

    def test_an_event_of_one_starts_nothing_of_the_other(self, templates: dict[str, Written]) -> None:
        sensors = [each for written in templates.values() for each in written.of_kind("Sensor")]
        for name, template in (
            ("fashion-retrain", "fashion.prod.trainflow"),
            ("mfns.fashion.test.ada.fashion-retrain", "fashion.test.ada.trainflow"),
        ):
            started = events.started_by({"name": "x", "payload": {"name": name}}, sensors)
            assert [each for each, _ in started] == [template]

    @pytest.mark.parametrize("flow", ["train", "deploy", "drift"])
    def test_the_registered_model_of_production_has_no_prefix(self, templates: dict[str, Written], flow: str) -> None:
        def overrides(branch: str) -> str:
            return templates[branch].variables(flow, "start")["HYDRA_ARGS"]

        assert "tracking" not in overrides("production")
        assert "tracking.registered_model=ada-fashion-classifier tracking.experiment=ada-fashion" in overrides("ada")

    def test_addresses_are_in_a_secret_of_their_own(self, templates: dict[str, Written]) -> None:
        (source,) = templates["ada"].steps("train")["start"]["container"]["envFrom"]
        assert source == {"secretRef": {"name": "fashion-ada"}}
        example = yaml.safe_load((templates["ada"].folder / "examples" / "secret.yaml").read_text())
        kubernetes_validate.validate(example, "1.35", strict=True)
        assert set(ADDRESSES) >= {name for name in example["stringData"] if "EMULATOR" not in name}
        assert set(example["stringData"].values()) == {""}


def test_paths_that_depend_on_what_was_found_are_kept(templates: dict[str, Written]) -> None:
    found = templates["production"].template("drift")["spec"]["templates"]
    (graph,) = (each["dag"] for each in found if each["name"] == "DriftFlow")
    waits = {task["name"]: task.get("depends") for task in graph["tasks"]}
    assert waits["end"] == "act.Succeeded || retrain.Succeeded"


def fashion(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fashion", "cluster", *arguments]
    return subprocess.run(command, env=dict(environment), cwd="/", capture_output=True, text=True, timeout=600)
