"""Processes killed at each of their writes to MLflow in turn. A script: `python kill_sweep.py DATABASE SOURCE`.

SOURCE defines `SCENARIOS`, name -> (act, check, methods). The action is killed just before its first write, then, on a
copy of the same database, before its second, and so on, until it ends by itself; each time the check runs afterwards,
in a process of its own. A write is a call of one of these methods of MLflow's client; of `WRITES` where there are none.
Prints, as JSON, how many writes each scenario has, or how its check failed.

One interpreter forks all processes, once it has done everything on a database of its own: MLflow's imports and its
first connection take seconds.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

WRITES = (
    "create_registered_model",
    "create_model_version",
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_model_version_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "log_batch",
    "log_artifacts",
    "set_terminated",
)
Function = Callable[[], None]


def in_fork(function: Function) -> int | str:
    """Run a function in a forked process; returns 0, minus the signal that ended it, or its traceback."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if not child:
            try:
                function()
            except BaseException:
                traceback.print_exc(file=output)
                output.flush()
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return output.read() if code > 0 else code


def killed_at(act: Function, write: int, methods: Sequence[str]) -> Function:
    """The action, killed just before its write of this number, from 1."""
    count = itertools.count(1)

    def wrap(original: Any) -> Any:
        def method(*args: Any, **kwargs: Any) -> Any:
            if next(count) == write:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return method

    def killed() -> None:
        for name in methods:
            setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))
        act()

    return killed


def sweep(database: Path, act: Function, check: Function, methods: Sequence[str]) -> int | str:
    """Kill an action at each of its writes; returns how many there were, or what went wrong."""
    template = database.with_suffix(".template")
    for write in itertools.count(1):
        shutil.copy(template, database)
        Path(f"{database}-journal").unlink(missing_ok=True)  # of a killed process
        ended = in_fork(killed_at(act, write, methods))
        if isinstance(ended, str):
            return f"before write {write}, by itself: {ended}"
        if problem := in_fork(check):
            return f"killed before write {write}: {problem}"
        if ended == 0:
            return write - 1
    raise AssertionError


def main(path: str, source: str) -> None:
    """Sweep all scenarios."""
    database, warm = Path(path), Path(path).with_suffix(".warm")
    shutil.copy(database, database.with_suffix(".template"))
    space: dict[str, Any] = {}
    exec(source, space)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{warm}"
    for act, check, _ in space["SCENARIOS"].values():
        shutil.copy(database, warm)
        act()
        check()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{database}"
    results = {
        name: sweep(database, act, check, methods or WRITES)
        for name, (act, check, methods) in space["SCENARIOS"].items()
    }
    print(json.dumps(results))


def run(database: Path, source: str) -> dict[str, object]:
    """Run this script on a database; returns scenario -> how many writes it has, or how its check failed.

    Args:
        database: with what the scenarios need.
        source: defines `SCENARIOS`.
    """
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), str(database), source],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        },
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
