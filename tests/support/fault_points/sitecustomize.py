"""On PYTHONPATH of a child process, where Python imports it: make the fault of `support.faults.at` happen."""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


def may_happen(fault: dict[str, Any]) -> bool:
    """Whether a fault has not happened yet, and may happen in this process."""
    flow, _, step = fault["task"].partition("/")
    words = sys.orig_argv
    is_task = ("step", step) in itertools.pairwise(words)
    is_here = not step or (is_task and any(word.endswith(f"{flow}.py") for word in words))
    return is_here and not Path(fault["done"]).exists()


FAULT = next(filter(may_happen, json.loads(os.environ.get("FASHION_TEST_FAULT", "[]"))), None)


def happen(calls: list[int]) -> None:
    """Count a call of the function; at the configured one, kill, raise or wait. Once over all child processes."""
    assert FAULT is not None
    calls[0] += 1
    if calls[0] != FAULT["call"]:
        return
    try:
        Path(FAULT["done"]).touch(exist_ok=False)
    except FileExistsError:
        return
    match FAULT["action"]:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "kill parent":
            os.kill(os.getppid(), signal.SIGKILL)
        case "interrupt":
            os.killpg(os.getpgrp(), signal.SIGINT)
        case "wait":
            time.sleep(FAULT["seconds"])
        case "full":
            raise OSError(28, "No space left on device")


def patch(module: ModuleType) -> None:
    """Wrap the configured function of a module."""
    assert FAULT is not None
    fault = FAULT
    *path, name = fault["function"].split(":")[1].split(".")
    owner: Any = functools.reduce(getattr, path, module)
    original, calls = getattr(owner, name), [0]

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if fault["when"] == "before":
            happen(calls)
        result = original(*args, **kwargs)
        if fault["when"] == "after":
            happen(calls)
        return result

    setattr(owner, name, wrapped)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the configured module once, and patches it after its own code has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own spec with a loader that patches it; None for any other module."""
        if FAULT is None or name != FAULT["function"].split(":")[0]:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            patch(module)

        loader.exec_module = exec_module
        return spec


if FAULT is not None:
    sys.meta_path.insert(0, Finder())
