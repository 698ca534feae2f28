"""Addresses: one folder by default, each of them movable, and nothing made by asking."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fashion.home import REPOSITORY, current_home

PREPARE = "import json, os; from fashion import home; home.prepare_environment(); print(json.dumps(dict(os.environ)))"
READ_HERE = ("FASHION", "MLFLOW", "METAFLOW", "GIT_PYTHON", "DO_NOT_TRACK")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable is set but those of the test."""
    for name in list(os.environ):
        if name.startswith(READ_HERE):
            monkeypatch.delenv(name)


def prepared(script: str = PREPARE, **variables: str) -> dict[str, str]:
    """The environment that a new process has after `prepare_environment`."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    environment: dict[str, str] = json.loads(done.stdout)
    return environment


def test_default_is_var_in_the_repository_from_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = current_home()
    assert home.root == REPOSITORY / "var"
    assert home.tracking_uri == f"sqlite:///{REPOSITORY}/var/mlflow.db"


def test_fashion_home_moves_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "elsewhere"
    monkeypatch.setenv("FASHION_HOME", str(root))
    home = current_home()
    assert home.root == root
    assert home.tracking_uri == f"sqlite:///{root}/mlflow.db"
    assert home.artifacts == f"file://{root}/mlflow-artifacts"
    assert home.data == root / "data"
    assert home.checkpoints == f"{root}/checkpoints"
    assert home.studies == f"{root}/optuna"


def test_asking_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASHION_HOME", str(tmp_path / "var"))
    current_home()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("told", ["state", "./state", "~/state"])
def test_a_relative_home_is_made_absolute(told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASHION_HOME", told)
    assert current_home().root == tmp_path / "state"


@pytest.mark.parametrize(
    ("variable", "field", "value"),
    [
        ("MLFLOW_TRACKING_URI", "tracking_uri", "https://mlflow.example"),
        ("FASHION_ARTIFACTS", "artifacts", "gs://bucket/artifacts"),
        ("FASHION_CHECKPOINTS", "checkpoints", "gs://bucket/checkpoints"),
        ("FASHION_STUDIES", "studies", "postgresql://db/optuna"),
        ("FASHION_BENTOS", "bento_archives", "gs://bucket/bentos"),
    ],
)
def test_a_variable_that_is_set_wins_and_an_empty_one_does_not(
    variable: str, field: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = getattr(current_home(), field)
    monkeypatch.setenv(variable, value)
    assert getattr(current_home(), field) == value
    monkeypatch.setenv(variable, "")
    assert getattr(current_home(), field) == default


def test_metaflow_and_mlflow_are_told_the_same_home(tmp_path: Path) -> None:
    environment = prepared(FASHION_HOME=str(tmp_path / "var"))
    assert environment["METAFLOW_DATASTORE_SYSROOT_LOCAL"] == str(tmp_path / "var" / "metaflow")
    assert environment["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/var/mlflow.db"
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def test_what_the_caller_has_set_stays(tmp_path: Path) -> None:
    told = {
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": "/mnt/metaflow",
        "METAFLOW_USER": "grace",
        "MLFLOW_TRACKING_URI": "https://mlflow.example",
    }
    environment = prepared(FASHION_HOME=str(tmp_path), **told)
    assert {name: environment[name] for name in told} == told


@pytest.mark.parametrize(("user", "expected"), [("root", "fashion"), ("ada", "ada")])
def test_root_gets_a_name_that_metaflow_accepts(user: str, expected: str, tmp_path: Path) -> None:
    assert prepared(FASHION_HOME=str(tmp_path), LOGNAME=user)["METAFLOW_USER"] == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without a name")
def test_a_user_id_without_a_name_gets_one() -> None:
    script = f"""
import json, os, pwd
for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
    os.environ.pop(name, None)
from fashion import home
os.setuid(54321)
{PREPARE}
"""
    assert prepared(script, FASHION_HOME=tempfile.gettempdir())["METAFLOW_USER"] == "fashion"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, None),
        ({"FASHION_LOG": "postgresql://u:p@h/d"}, "postgresql://u:p@h/d"),
        ({"FASHION_FIRESTORE": "p/d"}, "firestore://p/d"),
        ({"FASHION_FIRESTORE": "p", "FASHION_LOG": "firestore://p"}, "firestore://p"),
        ({"FASHION_FIRESTORE": "p", "FASHION_LOG": "firestore://p/(default)"}, "firestore://p/(default)"),
    ],
)
def test_the_shared_log_is_named_by_one_variable_or_an_older_one(
    variables: dict[str, str], named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert current_home().shared_log == named
    assert "u:p@h" not in repr(current_home())  # it may hold a password


def test_two_different_shared_logs_are_one_sentence_without_a_password() -> None:
    different = {"FASHION_LOG": "postgresql://u:secret@h/d", "FASHION_FIRESTORE": "p"}
    for command in (["-c", PREPARE], ["-m", "fashion", "log", "status"]):
        done = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **different},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr.startswith("error: FASHION_LOG and FASHION_FIRESTORE=p name different logs: unset")
        assert done.stderr.count("\n") == 1
        assert "secret" not in done.stderr
