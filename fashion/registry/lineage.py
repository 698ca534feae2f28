"""Which code is running, by git. Knows no models and no MLflow."""

import os
import subprocess

from fashion.home import REPOSITORY


def git_commit() -> str:
    """Return the commit of this checkout, with `-dirty` appended where tracked files differ from it.

    `FASHION_GIT_COMMIT` overrides it, for containers without a checkout. Without either it is `unknown`.
    """
    if commit := os.environ.get("FASHION_GIT_COMMIT"):
        return commit
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    completed = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return completed.stdout.strip()
