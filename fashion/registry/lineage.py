"""Which code is running. Knows git alone."""

import os
import subprocess

from fashion.home import REPOSITORY


def git_commit() -> str:
    """The commit of this checkout, `-dirty` where files differ from it.

    `FASHION_GIT_COMMIT` says it where there is no checkout (a container); `unknown` is the last resort.
    """
    if told := os.environ.get("FASHION_GIT_COMMIT"):
        return told
    try:
        commit = _git("rev-parse", "HEAD")
        return f"{commit}-dirty" if _git("status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
