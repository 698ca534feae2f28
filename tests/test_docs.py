"""Every command in the README works, and every file that it names exists."""

import re
import shlex
import subprocess
import sys

import pytest
from support import reliability
from support.machine import Machine

from fashion.config.compose import compose
from fashion.config.train import load_train_config
from fashion.home import REPOSITORY

README = (REPOSITORY / "README.md").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def containing(text: str) -> list[str]:
    """Commands of the README with some text."""
    return [command for command in COMMANDS if text in command]


def test_every_command_is_of_a_kind_that_is_tested() -> None:
    kinds = (
        *("make ", "flows/train_flow.py", "fashion data ", "fashion registry ", "fashion status"),
        *("fashion home ", "fashion gc"),
        # These run in test_live_commands.py, test_service.py, test_traffic.py and test_ui.py.
        *("fashion log ", "curl -F image=", "fashion traffic ", "fashion ui "),
    )
    assert COMMANDS
    assert [command for command in COMMANDS if not any(kind in command for kind in kinds)] == []


@pytest.mark.parametrize("command", containing("bin/fashion "))
def test_the_command_knows_its_verbs_and_options(command: str) -> None:
    words = shlex.split(command)
    assert words[0] == ".venv/bin/fashion"
    # With --help at the end nothing is done; a verb or option that does not exist is a usage error still.
    done = subprocess.run([sys.executable, "-m", "fashion", *words[1:], "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_of_faults_is_that_of_the_tests() -> None:
    assert reliability.PAGE.read_text() == reliability.page(), "run .venv/bin/python -m tests.support.reliability"
    assert len(reliability.promises()) > 100


@pytest.mark.parametrize("command", containing("make "))
def test_make_knows_the_target(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", containing("flows/train_flow.py run"))
def test_the_flow_takes_the_configuration(command: str) -> None:
    words = shlex.split(re.sub(r'HYDRA_ARGS="(.*?)" (.*)', r"\2 \1", command))
    composed = load_train_config(compose(words[words.index("run") + 1 :] if "data=mine" not in words else []))
    assert composed.training.num_epochs >= 1


def test_the_flow_has_the_other_verbs(challenged: Machine) -> None:
    for command in containing("flows/train_flow.py"):
        verb = command.split("train_flow.py ")[1].split()[0]
        done = challenged.python("flows/train_flow.py", verb, "--help")
        assert done.returncode == 0, done.stdout + done.stderr


def test_versions_are_listed_promoted_and_rolled_back(challenged: Machine) -> None:
    verbs = ("list", "promote", "rollback")  # the others run in test_live_commands.py
    commands = [shlex.split(command)[1:] for verb in verbs for command in containing(f"fashion registry {verb}")]
    results = [challenged.python("-m", "fashion", *words) for words in commands]
    assert [done.returncode for done in results] == [0, 0, 0], [done.stderr for done in results]
    listed, promoted, restored = (done.stdout for done in results)
    assert "version 1  champion" in listed
    assert "test accuracy" in listed
    assert promoted == "champion: version 2\n"
    assert restored == "champion: version 1\n"


def test_every_data_verb_in_the_readme_exists() -> None:
    shown = subprocess.run([sys.executable, "-m", "fashion", "data", "--help"], capture_output=True, text=True).stdout
    for verb in ("fetch", "verify", "status", "push", "add"):
        assert verb in shown
        assert f"`{verb}`" in README or f"fashion data {verb}" in README


def test_files_that_the_readme_points_to_exist() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_files_that_the_glossary_names_exist() -> None:
    glossary = (REPOSITORY / "docs" / "glossary.md").read_text()
    paths = re.findall(r"`((?:fashion|bentos|configs)/[^`]*)`", glossary)
    assert len(paths) > 20
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []


def test_every_target_is_documented_in_help() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    makefile = (REPOSITORY / "Makefile").read_text()
    for target in re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split():  # type: ignore[index]
        assert f"make {target}" in shown


def test_help_ends_by_naming_the_status_command() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert "fashion status" in [line for line in shown.splitlines() if not line.startswith("make[")][-1]
