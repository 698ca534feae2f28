"""What the project is made of is listed, and secrets do not get into it."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fashion.home import REPOSITORY


def find_secrets(*paths: str) -> subprocess.CompletedProcess[str]:
    """Run the hook of .pre-commit-config.yaml on files."""
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (hook,) = (hook for hook in hooks if hook["id"] == "secrets")
    program = Path(sys.executable).parent / Path(shlex.split(hook["entry"])[0]).name
    command = [str(program), *hook["args"], *paths]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_no_file_holds_a_secret() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    done = find_secrets(*filter(None, listed.split("\0")))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "secret",
    [
        'key = "AKIA' + "IOSFODNN7EXBMPLE" + '"',
        "FASHION_LOG=postgresql://fashion:" + "Gx7uhq2mWz@db.example/log",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
    ],
    ids=["cloud key", "password of a database", "private key"],
)
def test_a_secret_keeps_a_commit_from_being_made(secret: str, tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text(f"{secret}\n")
    done = find_secrets(str(tmp_path / "settings.py"))
    assert done.returncode == 1
    assert "settings.py:1" in done.stdout


@pytest.mark.slow
def test_the_bill_of_materials_lists_every_package_of_the_service(tmp_path: Path) -> None:
    done = subprocess.run(["make", "sbom"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = json.loads((REPOSITORY / "var" / "sbom.json").read_text())
    lock = (REPOSITORY / "requirements-serve.lock").read_text()
    assert {(each["name"], each["version"]) for each in listed["components"]} == set(
        re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", lock, re.MULTILINE)
    )
    assert listed["metadata"]["component"]["name"] == "fashion"


def test_the_audit_looks_at_every_lock_file() -> None:
    done = subprocess.run(["make", "-n", "audit"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (command,) = (line for line in done.stdout.splitlines() if "pip-audit" in line)
    assert set(re.findall(r"--requirement (\S+)", command)) == {path.name for path in REPOSITORY.glob("*.lock")}
