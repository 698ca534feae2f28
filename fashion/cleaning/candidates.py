"""What may go, and how it goes: the parts of every kind, without any knowledge of a kind."""

import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fashion.storage.address import open_store

DAY_SECONDS = 86_400.0
RECENT_SECONDS = DAY_SECONDS
"""What was changed since then may belong to a run that goes on."""


@dataclass(frozen=True)
class Candidate:
    """Something that may go."""

    kind: str
    name: str
    paths: tuple[Path, ...]
    """Files and folders that go with it."""
    num_bytes: int
    age_days: float
    """Since its last change."""
    store: str = ""
    """Address of a store of blobs; empty for files and folders."""
    blobs: tuple[str, ...] = ()
    """Names of the blobs in that store that go with it."""


def candidate(kind: str, name: str, paths: Iterable[Path], *, now: float | None = None) -> Candidate:
    """Measure files and folders.

    Args:
        kind: what it is.
        name: which one.
        paths: that there are; others are left out.
        now: seconds since 1970.
    """
    there = tuple(path for path in paths if path.exists())
    states = [state for path in there for state in _states(path)]
    changed = max((state.st_mtime for state in states), default=0.0)
    moment = time.time() if now is None else now
    return Candidate(kind, name, there, sum(state.st_size for state in states), (moment - changed) / DAY_SECONDS)


def is_due(found: Candidate, days: float) -> bool:
    """True if something is old enough to go."""
    return bool(found.paths or found.blobs) and is_old(found.age_days, days)


def is_old(age_days: float, days: float) -> bool:
    """True for an age of so many days, and of RECENT_SECONDS, at least."""
    return age_days >= max(days, RECENT_SECONDS / DAY_SECONDS)


def remove(found: Candidate) -> None:
    """Remove its files and folders, or its blobs.

    Raises:
        OSError: one cannot be removed; those before it are gone.
    """
    for name in found.blobs:
        open_store(found.store).delete(name)
    for path in found.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _states(path: Path) -> list[os.stat_result]:
    if not path.is_dir():
        return [path.lstat()]
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                found.append(Path(folder, name).lstat())
            except FileNotFoundError:  # removed meanwhile
                continue
    return found or [path.lstat()]
