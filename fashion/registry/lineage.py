"""Which code is running, by git. Knows no models and no MLflow."""

import os
import subprocess
from pathlib import Path

from fashion.home import REPOSITORY

USED = ("bentos", "configs", "flows", "fashion")
"""Folders whose files are used, committed or not."""
SUFFIXES = (".py", ".yaml", ".json")
"""Of code and configuration; a folder may also hold what git is told to ignore, such as bytecode."""
LOCATION = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE")
"""Variables by which git tells its hooks which repository they run in: it may be another one."""


def git_commit() -> str:
    """Return the commit of this checkout, with `-dirty` appended where code or configuration differs from it.

    That is a tracked file that was changed, a file of `USED` that is not committed, ignored ones too, or a
    configuration from elsewhere. `FASHION_GIT_COMMIT` overrides it, for containers without a checkout. Without either
    it is `unknown`: also for a download that lies in another project's repository.
    """
    if commit := os.environ.get("FASHION_GIT_COMMIT"):
        return commit
    try:
        if Path(_git("rev-parse", "--show-toplevel").rstrip("\n")).resolve() != REPOSITORY:
            return "unknown"
        commit = _git("rev-parse", "HEAD").strip()
        return f"{commit}-dirty" if _differs() else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _differs() -> bool:
    configs = os.environ.get("FASHION_CONFIGS")
    if configs and not Path(configs).resolve().is_relative_to(REPOSITORY):
        return True
    if _git("status", "--porcelain", "--untracked-files=no"):
        return True
    others = ("ls-files", "-z", "--others")  # without --exclude-standard: an ignored file is used all the same
    return any(name.endswith(SUFFIXES) for name in _git(*others, "--", *USED).split("\0"))


def _git(*arguments: str) -> str:
    completed = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments],
        env={name: value for name, value in os.environ.items() if name not in LOCATION},
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return completed.stdout
