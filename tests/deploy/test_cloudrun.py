"""The service on Cloud Run: every field is known to gcloud's own message classes, and the code reads every variable."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from support.gcloud_messages import sdk
from support.manifests import DEPLOY, load, project_variables, variables_of_the_code

CODE = """
import json, sys
from apitools.base.py import encoding
from googlecloudsdk.generated_clients.apis.run.v1 import run_v1_messages
service = encoding.DictToMessage(json.load(sys.stdin), run_v1_messages.Service)
print(json.dumps([names for _, names in encoding.UnrecognizedFieldIter(service)]))
"""


def unknown_fields(service: Any) -> Any:
    """Fields that gcloud would not know how to send."""
    library = Path(sdk(), "lib")
    environment = {**os.environ, "PYTHONPATH": f"{library}:{library / 'third_party'}"}
    command = ["/usr/bin/python3", "-c", CODE]
    done = subprocess.run(command, input=json.dumps(service), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def container() -> Any:
    (only,) = load("cloudrun.yaml")["spec"]["template"]["spec"]["containers"]
    return only


def test_gcloud_knows_every_field() -> None:
    assert unknown_fields(load("cloudrun.yaml")) == []


def test_gcloud_would_not_know_another_one() -> None:
    service = load("cloudrun.yaml")
    service["spec"]["template"]["spec"]["containers"][0]["startupProb"] = {}
    assert unknown_fields(service) == [["startupProb"]]


def test_the_code_reads_every_variable() -> None:
    names = project_variables(each["name"] for each in container()["env"])
    assert len(names) == len(container()["env"])
    assert names <= variables_of_the_code()


def test_every_secret_and_bucket_has_a_command_that_grants_it() -> None:
    text = (DEPLOY / "cloudrun.yaml").read_text()
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for each in container()["env"]:
        if "valueFrom" in each:
            scope = re.fullmatch(r"fashion-(\w+)-keys", each["valueFrom"]["secretKeyRef"]["name"])
            assert scope is not None
            assert scope[1] in comments
        elif each["value"].startswith("gs://"):
            assert f"add-iam-policy-binding {each['value']} --role" in comments
    assert "roles/secretmanager.secretAccessor" in comments
    assert "--member allUsers --role roles/run.invoker" in comments
    assert "serve.log.acknowledge=remote serve.log.images=true" in comments
