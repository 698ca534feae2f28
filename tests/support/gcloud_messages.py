"""Checks JSON against gcloud's message classes, which know each field and value of Google's APIs. Needs no account.

gcloud's libraries are not made for import beside others: a process of its own reads them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import importlib, json, sys
root = sys.argv[1]
sys.path[:0] = [f"{root}/lib", f"{root}/lib/third_party"]
from apitools.base.py import encoding
from apitools.base.protorpclite import messages


def problems(message, path):
    for name in message.all_unrecognized_fields():
        yield f"{path}{name}: there is no such field, or value"
    for field in message.all_fields():
        values = message.get_assigned_value(field.name)
        for index, value in enumerate(values if isinstance(values, list) else [values]):
            if isinstance(value, messages.Message):
                yield from problems(value, f"{path}{field.name}.")


for module, kind, body in json.load(sys.stdin):
    classes = importlib.import_module(f"googlecloudsdk.generated_clients.apis.{module}")
    try:
        message = encoding.DictToMessage(body, getattr(classes, kind))
        found = list(problems(message, ""))
    except Exception as error:
        found = [f"{type(error).__name__}: {error}"]
    print(json.dumps(found))
"""


def sdk() -> str:
    """The folder of the Google Cloud SDK. Without one the test is skipped; on CI it fails."""
    gcloud = shutil.which("gcloud")
    folders = ["/usr/lib/google-cloud-sdk", *([str(Path(gcloud).resolve().parents[1])] if gcloud else [])]
    found = next((folder for folder in folders if Path(folder, "lib", "googlecloudsdk").is_dir()), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs gcloud: the package google-cloud-cli")
        raise AssertionError("unreachable")
    return found


def problems(bodies: Sequence[tuple[str, str, Any]]) -> list[list[str]]:
    """What is wrong with each of several bodies; an empty list where nothing is.

    Args:
        bodies: module below `googlecloudsdk.generated_clients.apis`, name of the class, and the JSON.
    """
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, sdk()], input=json.dumps(bodies), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
