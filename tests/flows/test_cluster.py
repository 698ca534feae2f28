"""Flows as a Kubernetes cluster would be given them: Argo's workflow templates, with code in an emulated bucket."""

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.bucket import serve as serve_bucket
from support.machine import FLOWS, Machine


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Workflow templates by flow."""
    folder = tmp_path_factory.mktemp("cluster")
    machine = Machine(folder / "var")
    with serve_bucket("metaflow") as bucket, tokens() as address:
        environment = machine.environment | {
            "STORAGE_EMULATOR_HOST": bucket,
            "GOOGLE_APPLICATION_CREDENTIALS": str(service_account(folder, address)),
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


def service_account(folder: Path, token_server: str) -> Path:
    """A key file that is worth nothing outside the emulator."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "key.json"
    account = {"type": "service_account", "project_id": "none", "client_email": "nobody@none.example", "client_id": "0"}
    account |= {"private_key": key.decode(), "private_key_id": "0", "token_uri": token_server}
    path.write_text(json.dumps(account))
    return path


@contextlib.contextmanager
def tokens() -> Iterator[str]:
    """A server that gives everybody a token."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.dumps({"access_token": "none", "expires_in": 3600, "token_type": "Bearer"}).encode()
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
