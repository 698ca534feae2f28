"""One process at a time decides which version of a registered model is champion. Knows no versions.

MLflow has no compare-and-set for aliases: reading the champion and setting the alias are two requests. Where runs are
in a SQLite file, a lock on a file beside it holds until its process ends. Elsewhere a process sets a tag of its own on
the registered model, then reads all tags, and goes on only if no other process has one. Each sets before it reads, so
of two that do this at once at least one sees the other, whatever their clocks say.

A process that dies leaves its tag, which others remove once they have watched it for `ABANDONED_SECONDS`. A process
that is held up checks before its decisive write that it is within `HOLD_SECONDS`. What is left: one that is stopped for
minutes just between this check and its write can still write.
"""

import contextlib
import os
import random
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fashion.registry.versions import RegistryError
from fashion.storage import sqlite

TAG = "deciding."
"""How the tags begin that say which process decides."""
HOLD_SECONDS = 60.0
"""How long after its start a decision may be written."""
ABANDONED_SECONDS = 300.0
"""How long a tag is respected: `HOLD_SECONDS`, and a request that MLflow's client repeats for three minutes."""
PATIENCE_SECONDS = 600.0
"""How long to wait for other processes."""
POLL_SECONDS = 0.2


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[Callable[[], None]]:
    """Run the block in one process at a time, for each registered model.

    Args:
        name: of the registered model, which exists.

    Returns:
        A function to call before the decisive write.

    Raises:
        RegistryError: another process takes too long; or, by that function, this one has.
    """
    database = sqlite.path_of(mlflow.get_registry_uri())
    with _lock_file(database, name) if database is not None else _tag(name) as check:
        yield check


@contextlib.contextmanager
def _lock_file(database: Path, name: str) -> Iterator[Callable[[], None]]:
    import fcntl

    waiting = _Waiting(name)
    with database.with_name(f"{database.name}.deciding").open("a+") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                file.seek(0)
                waiting.wait(file.read().strip() or "another process")
        file.truncate(0)
        file.write(_me())
        file.flush()
        yield lambda: None  # the lock cannot be lost while the process lives


@contextlib.contextmanager
def _tag(name: str) -> Iterator[Callable[[], None]]:
    client, mine = MlflowClient(), f"{TAG}{uuid.uuid4().hex}"
    waiting = _Waiting(name)
    seen: dict[str, float] = {}
    try:
        while True:
            client.set_registered_model_tag(name, mine, _me())
            began = time.monotonic()
            others = _others(client, name, mine)
            if not others:
                break
            client.delete_registered_model_tag(name, mine)
            while others:
                waiting.wait(next(iter(others.values())))
                _remove_abandoned(client, name, others, seen)
                others = _others(client, name, mine)

        def check() -> None:
            if time.monotonic() - began > HOLD_SECONDS:
                raise RegistryError(
                    f"the decision on {name} took longer than {HOLD_SECONDS:g} s, and another process may decide by "
                    "now: look at `fashion registry list`, and run the command again where it is needed"
                )

        yield check
    finally:
        with contextlib.suppress(MlflowException):  # others remove it in time
            client.delete_registered_model_tag(name, mine)


class _Waiting:
    """Sleeps between attempts, says once for whom, and gives up in the end."""

    def __init__(self, name: str) -> None:
        self._name, self._began, self._has_said = name, time.monotonic(), False

    def wait(self, holder: str) -> None:
        """Sleep for a random fraction of a second, so that two who wait for each other part."""
        seconds = time.monotonic() - self._began
        if seconds > PATIENCE_SECONDS:
            raise RegistryError(f"{holder} has been deciding on {self._name} for {seconds:.0f} s: end it, or try later")
        if seconds > 2 and not self._has_said:
            self._has_said = True
            print(f"waiting for {holder}, which decides on {self._name}", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))


def _others(client: MlflowClient, name: str, mine: str) -> dict[str, str]:
    tags = client.get_registered_model(name).tags
    return {key: holder for key, holder in tags.items() if key.startswith(TAG) and key != mine}


def _remove_abandoned(client: MlflowClient, name: str, others: dict[str, str], seen: dict[str, float]) -> None:
    """Remove tags that were there too long.

    Args:
        client: MLflow's.
        name: of the registered model.
        others: tags of other processes.
        seen: tag -> when this process first saw it; by this process's clock alone, so clocks need not agree.
    """
    now = time.monotonic()
    for key in others:
        if now - seen.setdefault(key, now) > ABANDONED_SECONDS:
            client.delete_registered_model_tag(name, key)


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
