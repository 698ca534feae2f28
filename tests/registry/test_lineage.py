"""The commit that a run is filed under, asked of real repositories."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fashion.home import REPOSITORY
from fashion.registry import lineage

ASK = "from fashion.registry import lineage; print(lineage.git_commit())"


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *settings, *arguments]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()


def environment(**variables: str) -> dict[str, str]:
    # Git tells hooks by variables which repository they run in, which would lead it away from ours.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "FASHION_"))}
    return {**kept, **variables}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that ask, in a folder that is no repository."""
    folder = tmp_path / "copy"
    (folder / "fashion" / "registry").mkdir(parents=True)
    for name in ("__init__.py", "home.py", "registry/__init__.py", "registry/lineage.py"):
        shutil.copy(REPOSITORY / "fashion" / name, folder / "fashion" / name)
    return folder


@pytest.fixture
def checkout(copy: Path) -> Path:
    """The same, committed."""
    git(copy, "init", "--quiet")
    (copy / ".gitignore").write_text("__pycache__\n")
    git(copy, "add", ".")
    git(copy, "commit", "--quiet", "--message", "first")
    return copy


def asked(folder: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        cwd="/",
        env=environment(**{"PYTHONPATH": str(folder), "GIT_CEILING_DIRECTORIES": str(folder.parent), **variables}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_clean_checkout_has_its_commit_and_a_changed_one_is_dirty(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    (checkout / "notes.txt").write_text("not part of it")
    assert asked(checkout) == commit
    (checkout / "fashion" / "__init__.py").write_text("changed = True\n")
    assert asked(checkout) == f"{commit}-dirty"


@pytest.mark.parametrize("name", ["configs/data/mine.yaml", "configs/data/mine.manifest.json", "fashion/mine.py"])
@pytest.mark.parametrize("ignored", [False, True])
def test_code_and_configuration_that_are_not_committed_are_dirty_ignored_ones_too(
    name: str, ignored: bool, checkout: Path
) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    if ignored:
        (checkout / ".git" / "info" / "exclude").write_text(f"{name}\n")
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    (checkout / name).write_text("")
    assert asked(checkout) == f"{commit}-dirty"


def test_a_configuration_from_elsewhere_is_dirty(checkout: Path, tmp_path: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert asked(checkout, FASHION_CONFIGS=str(tmp_path)) == f"{commit}-dirty"
    assert asked(checkout, FASHION_CONFIGS=str(checkout / "configs")) == commit


@pytest.mark.fault("a download lies in another project's repository")
def test_a_download_inside_another_repository_does_not_take_its_commit(copy: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "of another project")
    assert asked(copy, GIT_CEILING_DIRECTORIES="/nowhere") == "unknown"


@pytest.mark.fault("git's own variables name another repository")
def test_variables_of_a_git_hook_do_not_lead_to_another_repository(checkout: Path, tmp_path: Path) -> None:
    commit, other = git(checkout, "rev-parse", "HEAD"), tmp_path / "other"
    other.mkdir()
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "--message", "of another project")
    assert asked(checkout, GIT_DIR=str(other / ".git"), GIT_WORK_TREE=str(other)) == commit


def test_this_repository_has_a_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASHION_GIT_COMMIT", raising=False)
    # An archive of it has no commit.
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", lineage.git_commit())
    monkeypatch.setenv("FASHION_GIT_COMMIT", "0123abc")
    assert lineage.git_commit() == "0123abc"


def test_the_variable_names_the_commit_where_there_is_no_checkout(copy: Path) -> None:
    assert asked(copy, FASHION_GIT_COMMIT="0123abc") == "0123abc"


def test_without_checkout_or_git_it_is_unknown(copy: Path, checkout: Path, tmp_path: Path) -> None:
    assert asked(checkout, PATH="") == "unknown"
    shutil.rmtree(copy / ".git")
    assert asked(copy) == "unknown"
