"""DeployFlow with a target: an archive, a dry run, and a rollout of a served bento on a local Cloud Run."""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import cloudrun, revision
from support.cloudrun import PROJECT, REGION, SERVICE, FakeCloudRun
from support.machine import Machine
from support.revision import RevisionServer
from support.served import Served

from fashion.deployment.canary import revision_stem
from fashion.registry import versions

IMAGE = "registry.example/classifier:v1"
ROLLOUT = [
    "serve.gallery=0",
    "deploy.target=cloudrun",
    f"deploy.project={PROJECT}",
    f"deploy.region={REGION}",
    f"deploy.image={IMAGE}",
    "deploy.hold_seconds=0",
    "deploy.requests=20",
    "deploy.smoke_rows=20",
    "deploy.smoke_accuracy=0.3",  # the model has seen 1,000 pictures
    "deploy.slo.latency_ms=5000",
]
FIRST = f"{SERVICE}-00001-abc"
NEW = revision_stem(SERVICE, 1, IMAGE)


@pytest.fixture(scope="module")
def cloud(service: Served) -> Iterator[tuple[FakeCloudRun, str]]:
    """Cloud Run with another revision; the image stands for the bento that `service` serves."""
    state = FakeCloudRun()
    with cloudrun.serve(state) as address, revision.serve(RevisionServer()) as other:
        state.urls = {"registry.example/other:1": other.url, IMAGE: service.url}
        state.create("registry.example/other:1")
        yield state, address


def deploy(machine: Machine, address: str, archives: Path, *overrides: str) -> tuple[int, str]:
    """Run DeployFlow to its end; returns its exit code and output."""
    machine.environment |= {"CLOUD_RUN_EMULATOR_HOST": address, "FASHION_BENTOS": str(archives)}
    try:
        process = machine.start("run", *ROLLOUT, *overrides, name="deploy_flow")
    finally:
        for name in ("CLOUD_RUN_EMULATOR_HOST", "FASHION_BENTOS"):
            del machine.environment[name]
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def test_dry_run_then_rollout(challenged: Machine, cloud: tuple[FakeCloudRun, str], tmp_path: Path) -> None:
    state, address = cloud
    code, output = deploy(challenged, address, tmp_path)
    assert code == 0, output
    assert f"would call UpdateService: revision {NEW} of image {IMAGE}, traffic {FIRST} 100 %" in output
    assert state.history == [{FIRST: 100}]
    # The archive of the bento, whose address is stored with the version.
    data = challenged.runs("DeployFlow")[-1].data
    challenged.connect()
    tags = versions.get("1").tags
    assert tags["bento"] == data.bento
    assert tags["bento.archive"] == data.archive == f"{tmp_path}/{data.bento.replace(':', '-')}.bento"
    assert tags["bento.sha256"] == hashlib.sha256(Path(data.archive).read_bytes()).hexdigest()

    code, output = deploy(challenged, address, tmp_path, "deploy.dry_run=false")
    assert code == 0, output
    assert [each.get(NEW, 0) for each in state.history] == [0, 0, 0, 5, 25, 50, 100, 100]
    assert f"{NEW} has all traffic" in output
    run = challenged.runs("DeployFlow")[-1]
    card = rollout_card(challenged, run)
    assert "# Rollout" in card
    assert "of 20 requests were answered" in card


def rollout_card(machine: Machine, run: Any) -> str:
    """Content of the rollout's card: Metaflow stores it as base64 JSON within the page."""
    path = machine.root / "rollout.html"
    machine.flow("card", "get", f"{run.id}/rollout", str(path), "--id", "rollout", name="deploy_flow")
    encoded = re.findall(r'"([A-Za-z0-9+/]{200,}={0,2})"', path.read_text())
    return "\n".join(base64.b64decode(each).decode(errors="replace") for each in encoded)


def test_a_rollout_that_steps_back_fails_the_run(
    challenged: Machine, cloud: tuple[FakeCloudRun, str], tmp_path: Path
) -> None:
    state, address = cloud
    code, output = deploy(
        challenged, address, tmp_path, "deploy.dry_run=false", "deploy.image=registry.example/other:1"
    )
    assert code == 1
    assert "is it the right image?" in output
    assert "error: fashion-classifier-v1-" in output
    assert "was stepped back, the previous revision has all traffic: at 0 % of the traffic" in output
    assert "Traceback" not in output
    assert len(state.traffic()) == 1


def test_a_version_that_is_not_the_champion_is_not_rolled_out(
    challenged: Machine, cloud: tuple[FakeCloudRun, str], tmp_path: Path
) -> None:
    state, address = cloud
    before = len(state.history)
    code, output = deploy(challenged, address, tmp_path, "deploy.dry_run=false", "version=2")
    assert code == 1
    assert "error: version 2 was refused by the gate (" in output
    assert "Traceback" not in output
    assert len(state.history) == before
